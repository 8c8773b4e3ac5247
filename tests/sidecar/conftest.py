"""A world for sidecars, made once per test module, and pods that are gone after the test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from edgefarm.nats.claims import ScopedKey
from edgefarm.nats.templates import PermissionTemplate
from edgefarm.vault import Vault
from localcluster.daprd import write_launcher
from localcluster.process import free_port
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.nats import SystemClient
from tests.conftest import mounted_vault
from tests.natskit import Hub, LocalAccount, LocalOperator
from tests.sidecar.leaf import Leaf
from tests.sidecar.world import NETWORK, SidecarPod, World
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
    return mounted_vault(openbao, authority, reviewer, "sidecar")


@pytest.fixture(scope="session")
def account(hub: Hub) -> LocalAccount:
    """The network's account, with an administrator beside the scoped keys of the tests."""
    account = hub.operator.account(NETWORK)
    account.scope("administrator", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
    return account


@pytest.fixture(scope="session")
def scopes() -> dict[str, ScopedKey]:
    """Scoped keys by service account; they stay in the account from test to test."""
    return {}


@pytest.fixture
async def world(
    vault: Vault, reviewer: TokenReviewer, hub: Hub, account: LocalAccount, scopes: dict[str, ScopedKey]
) -> AsyncIterator[World]:
    """Everything around the sidecars of one test."""
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    world = World(vault, reviewer, hub, system, account, hub.authority, scopes)
    await world.push()
    yield world
    await system.close()


@pytest.fixture
async def make_pod(world: World, work: Path) -> AsyncIterator[Callable[..., SidecarPod]]:
    """Makes pods and starts their sidecars; ends them after the test."""
    pods: list[SidecarPod] = []

    def make(service_account: str, *, start: bool = True, **environment: str) -> SidecarPod:
        pod = world.pod(work / f"pod-{len(pods)}", service_account, **environment)
        pods.append(pod)
        return pod.start() if start else pod

    yield make
    await asyncio.gather(*(asyncio.to_thread(pod.stop) for pod in pods if pod.process is not None))


@pytest.fixture
async def leaf(world: World, work: Path) -> AsyncIterator[Leaf]:
    """A running leaf; the accounts of the world are pushed to it, too."""
    server = Hub.start(work / "leaf", Authority.create(work / "leaf-pki"), world.hub.operator)
    system = SystemClient(server.urls, server.operator.system_credentials, ca_bundle=server.authority.pem)
    world.also.append(system)
    await world.push()
    yield Leaf(server)
    await system.close()
    server.stop()


@pytest.fixture(scope="session")
def daprd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program to run."""
    return os.environ.get("EDGEFARM_DAPRD") or str(write_launcher(tmp_path_factory.mktemp("daprd")))


@pytest.fixture
def make_dapr_pod(make_pod: Callable[..., SidecarPod], daprd: str) -> Callable[..., SidecarPod]:
    """Makes pods in mode dapr on free ports."""

    def make(service_account: str, *, start: bool = True, **environment: str) -> SidecarPod:
        ports = {"EDGEFARM_DAPR_HTTP_PORT": str(free_port()), "EDGEFARM_DAPR_GRPC_PORT": str(free_port())}
        settings = {"EDGEFARM_MODE": "dapr", "EDGEFARM_DAPRD": daprd, **ports, **environment}
        return make_pod(service_account, start=start, **settings)

    return make
