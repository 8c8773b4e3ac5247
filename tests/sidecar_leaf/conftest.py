"""A world for leafs, made once per process; each test has uplinks of its own, and its pods are gone after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from edgefarm.nats.claims import AccountLimits, ScopedKey
from edgefarm.nats.nkeys import KeyPair
from edgefarm.nats.templates import PermissionTemplate
from edgefarm.vault import Vault
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.nats import SystemClient
from tests.conftest import mounted_vault
from tests.natskit import Hub, LocalAccount, LocalOperator
from tests.sidecar_leaf.uplink import Uplink
from tests.sidecar_leaf.world import MEGABYTE, NETWORK, LeafPod, World, public_key
from tests.vault.reviewer import TokenReviewer

MakePod = Callable[..., Awaitable[LeafPod]]


@pytest.fixture(scope="session")
def vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> Vault:
    """An administrator's client of mounts that only these tests use."""
    return mounted_vault(openbao, authority, reviewer, "leaf")


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority, vault: Vault) -> Iterator[Hub]:
    """A single-server hub with a listener for leafs, whose users in SYS are signed by Vault."""
    public, _ = public_key(vault, names.SYSTEM_LEAF_KEY)
    operator = LocalOperator(leaf=KeyPair(public, seed=""))
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, operator, leafs=True)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def server_facts(hub: Hub) -> dict[str, Any]:
    """What access documents say about the server, always the same."""
    return {
        "operatorJwt": hub.operator.token(),
        "systemAccountJwt": hub.operator.system_token(),
        "fileStorage": 10 * MEGABYTE,
        "memoryStorage": 10 * MEGABYTE,
    }


@pytest.fixture(scope="session")
def account(hub: Hub) -> LocalAccount:
    """The network's account, with a scope for applications that may do everything."""
    account = hub.operator.account(NETWORK, AccountLimits(mem_storage=MEGABYTE, disk_storage=2 * MEGABYTE))
    account.scope("all", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
    return account


@pytest.fixture(scope="session")
def scopes() -> dict[str, ScopedKey]:
    """Keys of the EdgeNetworks; they stay in the account from test to test."""
    return {}


@pytest.fixture
async def world(
    vault: Vault,
    reviewer: TokenReviewer,
    hub: Hub,
    account: LocalAccount,
    scopes: dict[str, ScopedKey],
    server_facts: dict[str, Any],
) -> AsyncIterator[World]:
    """Everything around the leafs of one test."""
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    to_hub = await Uplink(int(hub.leaf_url.rpartition(":")[2])).open()
    to_vault = await Uplink(int(vault.settings.address.rpartition(":")[2])).open()
    world = World(vault, reviewer, hub, system, account, hub.authority, to_hub, to_vault, server_facts, scopes)
    await world.push()
    yield world
    await system.close()
    await to_hub.close()
    await to_vault.close()


@pytest.fixture
async def make_pod(world: World, work: Path) -> AsyncIterator[MakePod]:
    """Makes an EdgeNetwork (with members of its access document) and a pod of it; ends its processes after the test."""
    pods: list[LeafPod] = []

    async def make(edge: str | None = None, **environment: str) -> LeafPod:
        pod = world.pod(work / f"pod-{len(pods)}", edge or await world.edge_network(), **environment)
        pods.append(pod)
        return pod

    yield make
    await asyncio.gather(*(asyncio.to_thread(pod.stop) for pod in pods))
