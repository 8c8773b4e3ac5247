"""What the reconciler's client of the system account learns of leafs, honest and dishonest ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgefarm.errors import NatsUnavailable
from edgefarm.nats.templates import PermissionTemplate
from localcluster.stack import Authority
from reconciler.adapters.leafz import leafs_in, parse_go_duration
from reconciler.adapters.nats import SystemClient
from reconciler.ports import LeafOnHub
from tests.leafkit import Leaf, RogueLeaf
from tests.natskit import Hub, LocalAccount, LocalOperator, eventually


class Ears:
    """A leaf listener that can be waited for."""

    def __init__(self) -> None:
        self._heard = asyncio.Event()

    def __call__(self) -> None:
        self._heard.set()

    async def until_heard(self) -> None:
        async with asyncio.timeout(10):
            await self._heard.wait()
        self._heard.clear()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    """A hub that takes leafs."""
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, LocalOperator(), leafs=True)
    yield running
    running.stop()


@pytest.fixture
async def ears() -> Ears:
    return Ears()


@pytest.fixture
async def system(hub: Hub, ears: Ears) -> AsyncIterator[SystemClient]:
    client = SystemClient(
        hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem, timeout=2, on_leafs=ears
    )
    yield client
    await client.close()


@pytest.fixture
async def account(hub: Hub, system: SystemClient) -> LocalAccount:
    """A network whose leafs may connect."""
    made = hub.operator.account("net")
    made.scope("leaf", PermissionTemplate(connection_types=("LEAFNODE",)))
    await system.push(made.token())
    return made


async def connected(system: SystemClient, number: int) -> list[LeafOnHub]:
    """The leaf connections as soon as there are so many, and all of them listen."""
    async with asyncio.timeout(15):
        while True:
            leafs = list(await system.leafs())
            if len(leafs) == number and all(leaf.listening for leaf in leafs):
                return leafs
            await asyncio.sleep(0.05)


async def test_both_connections_of_a_leaf_are_seen_with_its_name_and_another_one_after_a_reconnect(
    hub: Hub, system: SystemClient, account: LocalAccount, work: Path
) -> None:
    assert await system.leafs() == []
    leaf = Leaf.create(work, hub, account, account.user("leaf"), domain="net-node_example").start()
    try:
        before = await connected(system, 2)
        assert {found.account for found in before} == {account.public, hub.operator.system.public}
        assert {found.name for found in before} == {"net-node_example"}
        assert all(0 < found.rtt < 5 for found in before)
        leaf.stop()
        await connected(system, 0)
        leaf.start()
        after = await connected(system, 2)
        assert not {found.connection for found in before} & {found.connection for found in after}
    finally:
        leaf.stop()


async def test_who_listens_is_told_of_leafs_that_come_and_go_and_of_each_login(
    hub: Hub, system: SystemClient, account: LocalAccount, ears: Ears
) -> None:
    await ears.until_heard()  # the login
    rogue = await RogueLeaf.connect(hub, hub.operator.leaf_credentials())
    await ears.until_heard()
    await rogue.close()
    await ears.until_heard()


async def test_a_hub_that_restarts_costs_no_leaf(work: Path, authority: Authority, ears: Ears) -> None:
    hub = Hub.start(work / "hub", authority, LocalOperator(), leafs=True)
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=authority.pem, timeout=2, on_leafs=ears)
    account = hub.operator.account("net")
    account.scope("leaf", PermissionTemplate(connection_types=("LEAFNODE",)))
    await system.push(account.token())
    await ears.until_heard()
    leaf = Leaf.create(work / "leaf", hub, account, account.user("leaf")).start()
    try:
        await connected(system, 2)
        hub.servers["hub-0"].stop()
        with pytest.raises(NatsUnavailable):
            await system.leafs()
        hub.start_server("hub-0")
        await connected(system, 2)
        await ears.until_heard()  # the login, before which it could have missed some
    finally:
        leaf.stop()
        await system.close()
        hub.stop()


async def test_an_account_is_pushed_beside_leafs_whose_answers_nobody_waits_for(
    hub: Hub, system: SystemClient, account: LocalAccount, work: Path
) -> None:
    leaf = Leaf.create(work, hub, account, account.user("leaf")).start()
    try:
        before = await connected(system, 2)
        # A leaf reads the account, too; what it makes of it fails no push, and it is not thrown out for wanting to say.
        await system.push(account.token())
        assert [found.server for found in await system.lookup(account.public)] == ["hub-0"]
        after = await connected(system, 2)
        assert {found.connection for found in before} == {found.connection for found in after}
    finally:
        leaf.stop()


async def test_a_leaf_that_answers_for_the_hub_is_not_heard_but_thrown_out(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    seen: list[str] = []
    for _ in range(3):
        rogue = await RogueLeaf.connect(hub, hub.operator.leaf_credentials())
        await rogue.subscribe("$SYS.REQ.CLAIMS.UPDATE")
        (connection,) = await connected(system, 1)
        server_id = connection.connection.rpartition(".")[0]
        lie = {"server": {"id": server_id, "name": "hub-0"}, "error": {"description": "forged"}}
        lying = asyncio.create_task(answer_all(rogue, json.dumps(lie)))
        token = account.token()
        await system.push(token)
        assert [found.jwt for found in await system.lookup(account.public)] == [token]
        await eventually(lambda rogue=rogue: rogue.closed, "the leaf that lied is thrown out")  # type: ignore[misc]
        lying.cancel()
        seen += replies(rogue)
        await rogue.close()
    assert len(seen) == len(set(seen)) == 3


def replies(rogue: RogueLeaf) -> list[str]:
    """Where the requests that the leaf has seen are to be answered."""
    messages = (line.split(" ") for line in rogue.received if line.startswith("LMSG $SYS.REQ.CLAIMS.UPDATE "))
    return [parts[2] for parts in messages]


async def answer_all(rogue: RogueLeaf, answer: str) -> None:
    """Answer every request that it sees."""
    answered = 0
    while True:
        for reply in replies(rogue)[answered:]:
            answered += 1
            rogue.send(f"LMSG {reply} {len(answer)}\r\n{answer}")
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("350µs", 0.00035), ("12.5ms", 0.0125), ("1.5s", 1.5), ("1m3.5s", 63.5), ("2h0m0.000000001s", 7200)],
)
def test_round_trips_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "ms", "-1s", "1s ", "1x"])
def test_what_go_would_not_write_is_no_round_trip(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_go_duration(text)


@pytest.mark.parametrize("page", [b"", b"[]", b"{}", b'{"data": {"leafs": [{}]}}', b'{"data": {"leafs": 5}}'])
def test_a_page_that_cannot_be_read_is_said_to_be_so(page: bytes) -> None:
    with pytest.raises(NatsUnavailable, match="unreadable"):
        leafs_in(page)


def test_a_server_without_leafs_has_none_and_its_own_uplinks_are_no_leafs() -> None:
    assert leafs_in(b'{"data": {"server_id": "N", "leafs": null}}') == []
    leaf = {"account": "A", "name": "n", "id": 1, "subscriptions": 0, "rtt": "", "is_spoke": True}
    page = {"data": {"server_id": "N", "leafs": [leaf, {**leaf, "is_spoke": False}]}}
    assert leafs_in(json.dumps(page).encode()) == [LeafOnHub("A", "n", 0, "N.1", listening=False)]
