"""Fixtures of the tests of procedures that the documentation describes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from localcluster.kubernetes import ApiServer, start_api_server
from tests.reconciler_servers.world import World, started
from tests.vault.reviewer import TokenReviewer


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the local one, or a real one where KUBEBUILDER_ASSETS is set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("apiserver"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture
async def world(work: Path, api_server: ApiServer, reviewer: TokenReviewer) -> AsyncIterator[World]:
    """A reconciler that runs OpenBao."""
    async with started(work, api_server, reviewer) as world:
        yield world
