"""One running platform per test module: API server, OpenBao, NATS, nodes, reconciler and webhook as real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from localcluster.daprd import write_launcher
from localcluster.platform import Platform, PlatformOptions


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """With short times, so that retries and renewals are seen soon."""
    folder: Path = tmp_path_factory.mktemp("platform")
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    options = PlatformOptions(
        daprd=write_launcher(folder),
        kubebuilder_assets=Path(assets) if assets else None,
        renew_every="2s",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
        resync="5s",
    )
    async with Platform(folder, options) as running:
        await running.start()
        yield running
