"""The reconciler's JetStream client against real servers: a hub, leafs that come and go, and few logins for many."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edgefarm.errors import DomainUnreachable, NatsUnavailable
from edgefarm.nats.claims import AccountLimits
from edgefarm.nats.leaf_rights import template_of_leaf
from edgefarm.nats.templates import JETSTREAM_CONTROLLER_TEMPLATE, PermissionTemplate
from localcluster.stack import Authority
from reconciler.adapters.jetstream import JetStreamPool, PoolLimits
from reconciler.adapters.nats import SystemClient
from reconciler.ports import JetStream
from tests.leafkit import MEGABYTE, Leaf
from tests.natskit import Credentials, Hub, LocalAccount, LocalOperator, eventually

STORAGE = AccountLimits(mem_storage=MEGABYTE, disk_storage=5 * MEGABYTE)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, LocalOperator(), leafs=True)
    yield running
    running.stop()


@pytest.fixture
async def system(hub: Hub) -> AsyncIterator[SystemClient]:
    client = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    yield client
    await client.close()


class Logins:
    """Accounts by network name; gives credentials, and counts who asked for them."""

    def __init__(self, hub: Hub, system: SystemClient) -> None:
        self._hub = hub
        self._system = system
        self.accounts: dict[str, LocalAccount] = {}
        self.asked: list[str] = []
        self.lifetime = 3600

    async def network(self, limits: AccountLimits = STORAGE) -> str:
        name = f"net{next(_numbers)}"
        account = self.accounts[name] = self._hub.operator.account(name, limits)
        account.scope("controller", JETSTREAM_CONTROLLER_TEMPLATE)
        account.scope("leaf", template_of_leaf(name, publications=["s.>"], subscriptions=["s.>"], stored=["s.>"]))
        await self._system.push(account.token())
        return name

    async def __call__(self, network: str) -> Credentials:
        self.asked.append(network)
        return self.accounts[network].user("controller", lifetime=self.lifetime)


@pytest.fixture
def logins(hub: Hub, system: SystemClient) -> Logins:
    return Logins(hub, system)


@asynccontextmanager
async def pool_of(hub: Hub, logins: Logins, limits: PoolLimits | None = None) -> AsyncIterator[JetStreamPool]:
    pool = JetStreamPool(hub.urls, logins, ca_bundle=hub.authority.pem, limits=limits)
    try:
        yield pool
    finally:
        await pool.close()
        assert pool.logins == 0


@pytest.fixture
async def pool(hub: Hub, logins: Logins) -> AsyncIterator[JetStreamPool]:
    async with pool_of(hub, logins) as opened:
        yield opened


async def test_requests_are_answered_in_the_networks_own_account(pool: JetStreamPool, logins: Logins) -> None:
    one, other = await logins.network(), await logins.network()
    made = await pool.network(one).request("main", "STREAM.CREATE.S", {"name": "S", "subjects": ["s"]})
    assert (made.error_code, made.body["config"]["name"]) == (0, "S")
    missing = await pool.network(other).request("main", "STREAM.INFO.S")
    assert (missing.error_code, missing.error) == (10059, "stream not found")
    assert sorted(logins.asked) == sorted([one, other])


async def test_an_account_without_storage_is_told_so(pool: JetStreamPool, logins: Logins) -> None:
    network = await logins.network(AccountLimits(mem_storage=0, disk_storage=0))
    answer = await pool.network(network).request("main", "STREAM.LIST")
    assert (answer.error_code, answer.error) == (10039, "JetStream not enabled for account")


async def test_a_domain_that_nobody_has_is_unreachable(pool: JetStreamPool, logins: Logins) -> None:
    with pytest.raises(DomainUnreachable, match="JetStream domain nowhere"):
        await pool.network(await logins.network()).request("nowhere", "STREAM.LIST")


async def test_leafs_are_asked_through_the_hub_also_after_they_were_away(
    hub: Hub, pool: JetStreamPool, logins: Logins, work: Path
) -> None:
    network = await logins.network()
    account = logins.accounts[network]
    leafs = {
        name: Leaf.create(work / name, hub, account, account.user("leaf", name=name), domain=f"{network}-{name}")
        for name in ("a", "b")
    }
    jetstream = pool.network(network)
    try:
        for name, leaf in leafs.items():
            leaf.start()
            await leaf.until_connected()
            body = {"name": "S", "subjects": [f"s.{name}"]}
            assert (await jetstream.request(leaf.server.domain, "STREAM.CREATE.S", body)).error_code == 0
        leafs["a"].stop()
        await until_away(jetstream, leafs["a"].server.domain)
        answer = await jetstream.request(leafs["b"].server.domain, "STREAM.INFO.S")
        assert answer.body["config"]["subjects"] == ["s.b"]
        leafs["a"].start()
        await leafs["a"].until_connected()
        answer = await jetstream.request(leafs["a"].server.domain, "STREAM.INFO.S")
        assert answer.body["config"]["subjects"] == ["s.a"]
    finally:
        for leaf in leafs.values():
            leaf.stop()


async def until_away(jetstream: JetStream, domain: str) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await jetstream.request(domain, "STREAM.LIST")
            except DomainUnreachable:
                return
            await asyncio.sleep(0.02)


async def test_a_login_that_the_server_ended_is_made_again_within_the_request(
    pool: JetStreamPool, logins: Logins, system: SystemClient
) -> None:
    network = await logins.network()
    account = logins.accounts[network]
    await pool.network(network).request("main", "STREAM.LIST")
    account.keys.pop("controller")
    account.scope("controller", JETSTREAM_CONTROLLER_TEMPLATE)
    await system.push(account.token())
    assert (await pool.network(network).request("main", "STREAM.LIST")).error_code == 0
    assert logins.asked == [network, network]


async def test_a_network_whose_account_does_not_know_us_is_unavailable(
    pool: JetStreamPool, logins: Logins, system: SystemClient
) -> None:
    network = await logins.network()
    account = logins.accounts[network]
    account.keys["controller"] = (account.operator.spare, PermissionTemplate())
    with pytest.raises(NatsUnavailable, match="Cannot log in to NATS"):
        await pool.network(network).request("main", "STREAM.LIST")
    assert pool.logins == 0


async def test_a_hub_that_is_gone_is_unavailable_whatever_domain_is_asked(
    authority: Authority, system: SystemClient, work: Path
) -> None:
    own = Hub.start(work, authority, LocalOperator())
    client = SystemClient(own.urls, own.operator.system_credentials, ca_bundle=authority.pem)
    logins = Logins(own, client)
    network = await logins.network()
    await client.close()
    async with pool_of(own, logins, PoolLimits(patience=2)) as pool:
        await pool.network(network).request("main", "STREAM.LIST")
        own.stop()
        for domain in ("main", "elsewhere"):
            with pytest.raises(NatsUnavailable) as caught:
                await pool.network(network).request(domain, "STREAM.LIST")
            assert not isinstance(caught.value, DomainUnreachable)


async def test_logins_are_bounded_and_the_least_recently_used_one_makes_room(hub: Hub, logins: Logins) -> None:
    networks = [await logins.network() for _ in range(3)]
    async with pool_of(hub, logins, PoolLimits(logins=2)) as pool:
        for network in (networks[0], networks[1], networks[0], networks[2]):
            await pool.network(network).request("main", "STREAM.LIST")
            assert pool.logins <= 2
        await pool.network(networks[0]).request("main", "STREAM.LIST")
        assert logins.asked == networks
        await pool.network(networks[1]).request("main", "STREAM.LIST")
        assert logins.asked == [*networks, networks[1]]


async def test_a_busy_pool_lets_others_wait_and_serves_all(hub: Hub, logins: Logins) -> None:
    networks = [await logins.network() for _ in range(6)]
    most = 0
    async with pool_of(hub, logins, PoolLimits(logins=2)) as pool:

        async def ask(network: str) -> int:
            nonlocal most
            answer = await pool.network(network).request("main", "STREAM.LIST")
            most = max(most, pool.logins)
            return answer.error_code

        async with asyncio.timeout(20):
            codes = await asyncio.gather(*(ask(network) for network in networks * 5))
    assert set(codes) == {0}
    assert 0 < most <= 2


async def test_who_waits_for_a_place_gets_the_one_that_becomes_free(hub: Hub, logins: Logins) -> None:
    first, second = await logins.network(), await logins.network()
    async with pool_of(hub, logins, PoolLimits(logins=1)) as pool:
        async with pool.connection(first):
            waiting = asyncio.create_task(pool.network(second).request("main", "STREAM.LIST"))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
        async with asyncio.timeout(5):
            assert (await waiting).error_code == 0


async def test_who_gives_up_waiting_leaves_the_place_to_others(hub: Hub, logins: Logins) -> None:
    first, second = await logins.network(), await logins.network()
    async with pool_of(hub, logins, PoolLimits(logins=1)) as pool:
        async with pool.connection(first):
            waiting = asyncio.create_task(pool.network(second).request("main", "STREAM.LIST"))
            await asyncio.wait([waiting], timeout=0.1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5):
            await pool.network(second).request("main", "STREAM.LIST")
            await pool.network(first).request("main", "STREAM.LIST")


async def test_idle_logins_end_and_used_ones_are_renewed_before_they_expire(hub: Hub, logins: Logins) -> None:
    network = await logins.network()
    async with pool_of(hub, logins, PoolLimits(idle_seconds=0.2)) as pool:
        await pool.network(network).request("main", "STREAM.LIST")
        assert pool.logins == 1
        await eventually(lambda: pool.logins == 0, "an idle login ended")
    async with pool_of(hub, logins, PoolLimits(login_seconds=0)) as pool:
        async with pool.connection(network) as old:
            logins.asked.clear()
            async with pool.connection(network) as new:
                assert new is not old
                assert not old.lost
            assert logins.asked == [network]
        await eventually(lambda: old.lost, "the replaced login ended")
