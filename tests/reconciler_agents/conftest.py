"""Fixtures of the tests of the agents' account and bus: one world, and a reconciler's part for agents per test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgefarm.api.crd import definitions
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.settings import KubernetesSettings
from tests.conftest import running_openbao
from tests.reconciler.world import World, install_definitions
from tests.reconciler_agents.kit import Cluster, Office, running_office

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A server of this area's own, because its bootstrap must stay as it is."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Authority, openbao: OpenBao) -> Iterator[World]:
    """The outside systems."""
    started = World.start(tmp_path_factory.mktemp("world"), authority, openbao)
    asyncio.run(_install(started))
    yield started
    started.stop()


async def _install(world: World) -> None:
    kube = await KubeClient.connect(KubernetesSettings(None, "", 0, world.api.kubeconfig))
    try:
        await install_definitions(kube, list(definitions().values()))
    finally:
        await kube.close()


@pytest.fixture
async def cluster(world: World) -> AsyncIterator[Cluster]:
    """Nodes, pods and tokens; the names of nodes are this test's own."""
    kube = await KubeClient.connect(KubernetesSettings(None, "", 0, world.api.kubeconfig))
    try:
        yield Cluster(world, kube, f"t{next(_numbers)}")
    finally:
        await kube.close()


@pytest.fixture
async def office(world: World, cluster: Cluster, work: Path) -> AsyncIterator[Office]:
    """A reconciler whose account of agents is made; it is removed in the end."""
    async with running_office(world, cluster.kube, work) as office:
        await office.converge()
        yield office
        await office.switch_off()


@pytest.fixture
async def listening(office: Office) -> AsyncIterator[Office]:
    """The same, while it leads and hears agents."""
    task = asyncio.create_task(office.service.run())
    await office.heard()
    yield office
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
