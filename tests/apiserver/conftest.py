"""One API server per test process: localcluster's, or a real one when KUBEBUILDER_ASSETS names its folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.kubernetes import ApiServer, LocalApiServer, start_api_server
from tests.apiserver.rest import Rest

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def assets() -> Path | None:
    """Folder of etcd and kube-apiserver; None: test localcluster."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(folder) if folder else None


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, assets: Path | None) -> Iterator[ApiServer]:
    running = start_api_server(tmp_path_factory.mktemp("kubernetes"), assets)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def rest(server: ApiServer) -> Rest:
    """The administrator's client."""
    return Rest(server.url, server.ca, server.admin_token)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Makes names that no other test uses."""
    return lambda prefix: f"{prefix}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def namespace(rest: Rest, fresh: Callable[[str], str]) -> str:
    """A namespace of its own with the service account `default`."""
    name = fresh("ns")
    rest.create("/api/v1/namespaces", {"metadata": {"name": name}})
    rest.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
    return name


@pytest.fixture
def local_only(server: ApiServer) -> None:
    """For what a bare kube-apiserver leaves to controllers that are not there, and a whole cluster decides itself."""
    if not isinstance(server, LocalApiServer):
        pytest.skip("needs localcluster's own API server")
