"""One running platform per test module: API server, OpenBao, NATS, nodes, reconciler and webhook as real processes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from localcluster.daprd import write_launcher
from localcluster.kubernetes import KUBECONFIG_VARIABLE
from localcluster.platform import Platform, PlatformOptions
from tests.e2e.given import installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if KUBECONFIG_VARIABLE not in os.environ:
        return
    reason = f"the demo may be killed and then leaves its objects behind: unset {KUBECONFIG_VARIABLE}"
    for item in items:
        if item.path.name in ("test_demo.py", "test_demo_mesh.py", "test_demo_helm.py", "test_edge_demo.py"):
            item.add_marker(pytest.mark.skip(reason=reason))


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
    async with installed(folder, options) as running:
        yield running
