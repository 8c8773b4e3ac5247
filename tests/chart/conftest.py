"""An API server of this area alone, because objects of the chart have fixed names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster.kubernetes import ApiServer, start_api_server
from tests.apiserver.rest import Rest


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An empty API server."""
    running = start_api_server(tmp_path_factory.mktemp("kubernetes"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def rest(server: ApiServer) -> Rest:
    """The administrator's client."""
    return Rest(server.url, server.ca, server.admin_token)
