"""Vault and NATS as the controller of NATS reaches them, before the configuration is in force for others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from edgefarm import names
from edgefarm.errors import NatsUnavailable, RestartNeeded, VaultUnavailable
from localcluster.stack import Authority
from reconciler.hub_access import HubAccess
from tests.conftest import running_openbao
from tests.reconciler.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[World]:
    """Vault, bootstrapped by an administrator, and a hub that trusts its operator."""
    with running_openbao(tmp_path_factory, authority) as openbao:
        started = World.start(tmp_path_factory.mktemp("world"), authority, openbao)
        yield started
        started.stop()


@pytest.fixture
async def access(world: World, work: Path) -> AsyncIterator[HubAccess]:
    token = work / "token"
    token.write_text(world.reviewer.token(names.CONTROLLER_NAMESPACE, names.CONTROLLER_SERVICE_ACCOUNT))
    made = HubAccess(token, clock=lambda: datetime.now(UTC), log=structlog.get_logger())
    yield made
    await made.close()


async def test_nothing_is_known_before_a_configuration_is_followed(access: HubAccess) -> None:
    with pytest.raises(VaultUnavailable):
        await access.operator()
    with pytest.raises(NatsUnavailable):
        _ = access.servers


async def test_the_operator_comes_from_vault_and_servers_answer_a_user_that_it_signed(
    world: World, access: HubAccess
) -> None:
    access.follow(world.configuration)
    assert await access.operator() == world.operator.document()
    (server,) = await access.servers.states()
    assert (server.name, server.config, server.clustered) == ("hub", "", False)
    assert await access.servers.stored_streams() == 0
    await access.servers.reload(server.id)
    config = world.folder / "hub" / "hub.conf"
    text = config.read_text()
    config.write_text(text.replace("domain: main", "domain: other"))
    with pytest.raises(RestartNeeded, match="hub goes on with its old configuration"):
        await access.servers.reload(server.id)
    config.write_text(text)


async def test_the_same_configuration_costs_no_new_login_and_another_one_is_followed(
    world: World, access: HubAccess
) -> None:
    access.follow(world.configuration)
    first = access.servers
    access.follow(world.configuration)
    assert access.servers is first
    other = replace(world.configuration.nats, urls=("tls://127.0.0.1:1",))
    access.follow(replace(world.configuration, nats=other))
    with pytest.raises(NatsUnavailable):
        await access.servers.states()


async def test_a_server_that_is_not_there_does_not_say_that_it_reloaded(world: World, access: HubAccess) -> None:
    access.follow(world.configuration)
    with pytest.raises(NatsUnavailable, match="did not say"):
        await access.servers.reload("NOBODY")
