"""An API server of this area alone, because objects of the chart have fixed names: localcluster's, or a real one when
KUBEBUILDER_ASSETS names its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcluster.demo.helm.release import Charts
from localcluster.kubernetes import ApiServer, start_api_server
from tests.apiserver.rest import Rest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty API server."""
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    running = start_api_server(tmp_path_factory.mktemp("kubernetes"), Path(folder) if folder else None)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def rest(server: ApiServer) -> Rest:
    """The administrator's client."""
    return Rest(server.url, server.ca, server.admin_token)


@pytest.fixture(scope="module")
def chart(rest: Rest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, for this API server: Helm refuses one that was built without a version."""
    version: str = rest.read("/version")["gitVersion"]
    return Charts.copy(tmp_path_factory.mktemp("charts"), version).current
