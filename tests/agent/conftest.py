"""One hub and one OpenBao for the tests of this area; every test has its own agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent.executor import NetworkSettings
from edgefarm import names
from edgefarm.nats.templates import AGENT_TEMPLATE, AGENTS_CONTROLLER_TEMPLATE
from edgefarm.vault import Vault
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.nats import SystemClient
from tests.agent.world import Controller, EdgeHost, World
from tests.conftest import mounted_vault
from tests.natskit import Hub, LocalAccount, LocalOperator
from tests.vault.reviewer import TokenReviewer


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    """A running single-server hub."""
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, LocalOperator())
    yield running
    running.stop()


@pytest.fixture(scope="session")
def vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> Vault:
    """An administrator's client of mounts that only these tests use."""
    return mounted_vault(openbao, authority, reviewer, "agent")


@pytest.fixture(scope="session")
def account(hub: Hub) -> LocalAccount:
    """The account AGENTS, with a spare key of agents beside the one in Vault."""
    account = hub.operator.account(names.AGENTS_ACCOUNT)
    account.scope("controller", AGENTS_CONTROLLER_TEMPLATE)
    account.scope("spare", AGENT_TEMPLATE)
    return account


@pytest.fixture
async def world(
    vault: Vault, reviewer: TokenReviewer, hub: Hub, account: LocalAccount, authority: Authority
) -> AsyncIterator[World]:
    """Everything around the agents of one test."""
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    world = World(vault, reviewer, hub, system, account, authority)
    await world.push()
    world.grant()
    yield world
    await system.close()


@pytest.fixture
async def controller(world: World) -> AsyncIterator[Controller]:
    """The reconciler's side."""
    controller = await Controller.open(world.hub, world.controller_user())
    yield controller
    await controller.close()


@pytest.fixture
async def make_host(world: World, work: Path) -> AsyncIterator[Callable[..., EdgeHost]]:
    """Makes hosts and ends their agents after the test."""
    hosts: list[EdgeHost] = []

    def make(network: NetworkSettings | None = None, *, start: bool = True) -> EdgeHost:
        hosts.append(world.host(work / f"host-{len(hosts)}", network))
        return hosts[-1].start() if start else hosts[-1]

    yield make
    await asyncio.gather(*(host.stop() for host in hosts))
