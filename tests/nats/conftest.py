"""One hub of one server for the tests of this area; each test makes accounts of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from tests.natskit import Hub, LocalOperator


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    """A running single-server hub."""
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, LocalOperator())
    yield running
    running.stop()


@pytest.fixture
async def system(hub: Hub) -> AsyncIterator[SystemClient]:
    """The reconciler's client at that hub."""
    client = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    yield client
    await client.close()
