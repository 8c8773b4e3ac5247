"""What a leaf passes on and what it may not, against a real hub two real leafs, and a leaf that plays foul."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from nats.errors import Error as NatsError
from nats.js.api import ExternalStream, RetentionPolicy, StreamConfig, StreamSource

from edgefarm.nats.claims import AccountLimits
from edgefarm.nats.leaf_rights import template_of_leaf
from edgefarm.nats.templates import PermissionTemplate
from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from tests.leafkit import MEGABYTE, Leaf, RogueLeaf
from tests.natskit import Connection, Hub, LocalAccount, LocalOperator, eventually

#: What the Policies of the network allow, and what the nodes' streams store.
SUBJECTS = ("command.>", "live.>", "sensor.>", "status.*")
STORED = ("sensor.>", "status.*")
_numbers = itertools.count(1)


@dataclass
class Edge:
    """A hub with two leafs of one account; every test makes streams and subjects of its own."""

    hub: Hub
    account: LocalAccount
    a: Leaf
    b: Leaf


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Edge]:
    work = tmp_path_factory.mktemp("edge")
    hub = Hub.start(work / "hub", authority, LocalOperator(), leafs=True)
    account = hub.operator.account("foo", AccountLimits(mem_storage=MEGABYTE, disk_storage=5 * MEGABYTE))
    account.scope("all", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
    account.scope("leaf", template_of_leaf("foo", publications=SUBJECTS, subscriptions=SUBJECTS, stored=STORED))

    async def push() -> None:
        client = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=authority.pem)
        await client.push(account.token())
        await client.close()

    asyncio.run(push())
    leafs = [
        Leaf.create(work / name, hub, account, account.user("leaf", name=name), domain=f"foo-{name}").start()
        for name in ("a", "b")
    ]
    yield Edge(hub, account, *leafs)
    for leaf in leafs:
        leaf.stop()
    hub.stop()


@dataclass
class Clients:
    """Clients that may do everything in the account, at the hub and at the two leafs."""

    hub: Connection
    a: Connection
    b: Connection
    #: A word that no other test uses in subjects and names.
    own: str

    async def settle(self) -> None:
        """Return when the servers have worked off what was sent, and what came of it at the others."""
        for client in (self.a, self.b, self.hub, self.a, self.b):
            await client.settle()


@pytest.fixture
async def clients(edge: Edge) -> AsyncIterator[Clients]:
    await edge.a.until_connected()
    await edge.b.until_connected()
    async with AsyncExitStack() as stack:
        hub, a, b = [
            await stack.enter_async_context(await Connection.open(url, edge.hub.authority, edge.account.user("all")))
            for url in (edge.hub.url, edge.a.url, edge.b.url)
        ]
        yield Clients(hub, a, b, f"t{next(_numbers)}")


@pytest.fixture
async def rogue(edge: Edge) -> AsyncIterator[RogueLeaf]:
    """Somebody with the credentials of node a's leaf in the network."""
    leaf = await RogueLeaf.connect(edge.hub, edge.account.user("leaf", name="a"), "rogue")
    yield leaf
    await leaf.close()


@pytest.fixture
async def system_rogue(edge: Edge) -> AsyncIterator[RogueLeaf]:
    """Somebody with a leaf's credentials in the system account."""
    leaf = await RogueLeaf.connect(edge.hub, edge.hub.operator.leaf_credentials(), "rogue")
    yield leaf
    await leaf.close()


async def delivered(publisher: Connection, subscriber: Connection, subject: str, pattern: str | None = None) -> bool:
    """Whether what one publishes reaches the other."""
    got: list[bytes] = []

    async def note(message: object) -> None:
        got.append(b"")

    subscription = await subscriber.client.subscribe(pattern or subject, cb=note)
    await subscriber.settle()
    try:
        deadline = asyncio.get_running_loop().time() + 1
        while not got and asyncio.get_running_loop().time() < deadline:
            # Again and again: interest takes a moment to get from server to server.
            await publisher.client.publish(subject, b"x")
            await publisher.settle()
            await subscriber.settle()
        return bool(got)
    finally:
        await subscription.unsubscribe()


# ── live messages ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_clients_of_one_leaf_reach_each_other(edge: Edge, clients: Clients) -> None:
    other = await Connection.open(edge.a.url, edge.hub.authority, edge.account.user("all"))
    async with other:
        for subject in ("live", "sensor", "elsewhere"):
            assert await delivered(clients.a, other, f"{subject}.{clients.own}")


async def test_what_is_not_stored_flows_between_hub_and_leafs_in_all_directions(clients: Clients) -> None:
    subject = f"live.{clients.own}"
    for one, other in itertools.permutations((clients.hub, clients.a, clients.b), 2):
        assert await delivered(one, other, subject)
        assert await delivered(one, other, subject, "live.>")


async def test_what_no_policy_allows_stays_where_it_is(clients: Clients) -> None:
    for one, other in itertools.permutations((clients.hub, clients.a), 2):
        assert not await delivered(one, other, f"elsewhere.{clients.own}")


@pytest.mark.parametrize("pattern", ["exact", "sensor.>", "sensor.*", ">"])
async def test_what_is_stored_reaches_the_hub_live_but_no_other_node(clients: Clients, pattern: str) -> None:
    subject = f"sensor.{clients.own}"
    wanted = subject if pattern == "exact" else pattern
    assert await delivered(clients.a, clients.hub, subject, wanted)
    assert not await delivered(clients.a, clients.b, subject, wanted)
    assert not await delivered(clients.hub, clients.b, subject, wanted)
    assert await delivered(clients.a, clients.hub, subject, wanted), "also while others listen"


async def test_requests_are_answered_across_the_uplink(clients: Clients) -> None:
    async def answer(message: object) -> None:
        await message.respond(b"pong")  # type: ignore[attr-defined]

    for one, other in itertools.permutations((clients.hub, clients.a), 2):
        subject = f"command.{clients.own}"
        subscription = await other.client.subscribe(subject, cb=answer)
        await other.settle()

        async def ask(client: Connection = one, subject: str = subject) -> bool:
            try:
                return bool((await client.client.request(subject, b"", timeout=0.5)).data == b"pong")
            except NatsError:  # nobody there yet
                return False

        assert any([await ask() for _ in range(5)])
        await subscription.unsubscribe()


# ── streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_stores_only_what_its_own_node_publishes(clients: Clients) -> None:
    subject, name = f"sensor.{clients.own}", f"S-{clients.own}"
    for client in (clients.a, clients.b):
        await client.client.jetstream().add_stream(name=name, subjects=[subject])
    for _ in range(10):
        await clients.a.client.jetstream().publish(subject, b"from a")
    await clients.b.client.jetstream().publish(subject, b"from b")
    await clients.hub.client.publish(subject, b"from the hub")
    await clients.settle()
    stored = [(await client.client.jetstream().stream_info(name)).state.messages for client in (clients.a, clients.b)]
    assert stored == [10, 1]


async def test_a_main_stream_collects_what_the_nodes_store(clients: Clients) -> None:
    subject, name = f"sensor.{clients.own}", f"S-{clients.own}"
    for client in (clients.a, clients.b):
        await client.client.jetstream().add_stream(name=name, subjects=[subject])
    sources = [
        StreamSource(name=name, external=ExternalStream(api=f"$JS.foo-{node}.API", deliver="")) for node in ("a", "b")
    ]
    hub = clients.hub.client.jetstream()
    await hub.add_stream(StreamConfig(name=f"ALL-{clients.own}", sources=sources))
    for client in (clients.a, clients.b):
        for number in range(20):
            await client.client.jetstream().publish(subject, str(number).encode())
    await until_messages(clients.hub, f"ALL-{clients.own}", 40)


async def test_an_edge_stream_is_a_copy_of_a_main_stream(clients: Clients) -> None:
    hub = clients.hub.client.jetstream()
    await hub.add_stream(name=f"MAIN-{clients.own}", subjects=[f"command.{clients.own}"])
    mirror = StreamSource(name=f"MAIN-{clients.own}", external=ExternalStream(api="$JS.main.API", deliver=""))
    for client in (clients.a, clients.b):
        await client.client.jetstream().add_stream(StreamConfig(name=f"COPY-{clients.own}", mirror=mirror))
    for number in range(20):
        await hub.publish(f"command.{clients.own}", str(number).encode())
    for client in (clients.a, clients.b):
        await until_messages(client, f"COPY-{clients.own}", 20)


async def test_the_hubs_streams_can_be_consumed_from_a_node(clients: Clients) -> None:
    name, subject = f"MAIN-{clients.own}", f"command.{clients.own}"
    work = StreamConfig(name=name, subjects=[subject], retention=RetentionPolicy.WORK_QUEUE)
    hub = clients.hub.client.jetstream()
    await hub.add_stream(work)
    await hub.publish(subject, b"do it")
    remote = clients.a.client.jetstream(domain="main")
    consumer = await remote.pull_subscribe(subject, durable="worker", stream=name)
    (message,) = await consumer.fetch(1, timeout=5)
    assert message.data == b"do it"
    await message.ack_sync(timeout=5)
    await until_messages(clients.hub, name, 0)


async def test_an_acknowledgement_at_one_node_is_none_at_another(clients: Clients) -> None:
    subject, name = f"sensor.{clients.own}", f"S-{clients.own}"
    for client in (clients.a, clients.b):
        context = client.client.jetstream()
        await context.add_stream(name=name, subjects=[subject])
        await context.publish(subject, b"1")
    taken = [
        await (await client.client.jetstream().pull_subscribe(subject, durable="app", stream=name)).fetch(1, timeout=5)
        for client in (clients.a, clients.b)
    ]
    await taken[0][0].ack_sync(timeout=5)
    await clients.settle()
    pending = [
        (await client.client.jetstream().consumer_info(name, "app")).num_ack_pending
        for client in (clients.a, clients.b)
    ]
    assert pending == [0, 1]


# ── what a stolen credential cannot do ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "subject",
    [
        *(
            f"$JS.{domain}.API.{request}"
            for domain in ("main", "foo-b", "foo-a")
            for request in (
                "STREAM.CREATE.NEW",
                "STREAM.UPDATE.KEPT",
                "STREAM.DELETE.KEPT",
                "STREAM.PURGE.KEPT",
                "STREAM.MSG.DELETE.KEPT",
                "STREAM.SNAPSHOT.KEPT",
                "STREAM.RESTORE.KEPT",
                "CONSUMER.DELETE.KEPT.worker",
                "CONSUMER.PAUSE.KEPT.worker",
            )
        ),
        "$JS.main.API.STREAM.MSG.GET.KEPT",
        "$JS.main.API.DIRECT.GET.KEPT",
        "$JS.foo-b.API.CONSUMER.CREATE.KEPT",
        "$JS.API.STREAM.CREATE.NEW",
        "$JS.API.INFO",
        "$SYS.REQ.SERVER.PING",
        "$SYS.REQ.ACCOUNT.PING.CONNZ",
        "_CONTROLLER.forged",
        "elsewhere.x",
    ],
)
async def test_a_leaf_that_publishes_what_it_may_not_is_cut_off(rogue: RogueLeaf, subject: str) -> None:
    await rogue.publish(subject, "{}", "_INBOX.answer")
    assert rogue.closed
    assert "Permissions Violation for Publish" in rogue.errors[0]


async def test_a_leaf_receives_no_request_for_the_jetstream_of_others(clients: Clients, rogue: RogueLeaf) -> None:
    wanted = (">", "$JS.>", "$JS.main.API.>", "$JS.foo-b.API.>", "$JS.API.>", "$SYS.>", "$JS.ACK.>", "$JS.foo-a.API.>")
    for pattern in (*wanted, "sensor.>", "elsewhere.>", "live.>"):
        await rogue.subscribe(pattern)
    for subject in (
        "$JS.main.API.STREAM.NAMES",
        "$JS.API.STREAM.NAMES",
        "$JS.foo-b.API.STREAM.NAMES",
        "$SYS.REQ.USER.INFO",
        "$JS.ACK.S.C.1.1.1.1.1",
        "sensor.x",
        "elsewhere.x",
        "$JS.foo-a.API.STREAM.NAMES",
        "live.x",
    ):
        await clients.hub.client.publish(subject, b"{}")
    await clients.hub.settle()
    await eventually(lambda: "live.x" in rogue.subjects(), "what it may see")
    assert set(rogue.requests()) == {"$JS.foo-a.API.STREAM.NAMES", "live.x"}


@pytest.mark.parametrize("name", ["main", "*", ">", "b.API.> q", "../main", ""])
async def test_a_leaf_cannot_take_the_hubs_place_by_choosing_a_name(edge: Edge, clients: Clients, name: str) -> None:
    rogue = await RogueLeaf.connect(edge.hub, edge.account.user("leaf", name=name), "main")
    for pattern in ("$JS.main.API.>", "$JS.*.API.>", ">"):
        await rogue.subscribe(pattern)
    await clients.hub.client.publish("$JS.main.API.STREAM.NAMES", b"{}")
    await clients.hub.client.publish("$JS.foo-b.API.STREAM.NAMES", b"{}")
    await clients.hub.client.publish("live.last", b"")
    await clients.hub.settle()
    await eventually(lambda: "live.last" in rogue.subjects() or rogue.closed, "all that it gets")
    assert not [subject for subject in rogue.requests() if subject.startswith("$JS")]
    await rogue.close()


async def test_a_leafs_key_is_worth_nothing_to_an_ordinary_client(edge: Edge) -> None:
    for credentials in (edge.account.user("leaf", name="a"), edge.hub.operator.leaf_credentials()):
        with pytest.raises(NatsError):
            await Connection.open(edge.hub.url, edge.hub.authority, credentials)
        with pytest.raises(NatsError):
            await Connection.open(edge.a.url, edge.hub.authority, credentials)


# ── the system account ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "subject",
    [
        "$SYS.REQ.CLAIMS.UPDATE",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.CLAIMS.LIST",
        "$SYS.REQ.CLAIMS.PACK",
        "$SYS.REQ.ACCOUNT.<account>.CLAIMS.UPDATE",
        "$SYS.REQ.ACCOUNT.<account>.CONNZ",
        "$SYS.REQ.ACCOUNT.<account>.INFO",
        "$SYS.REQ.SERVER.PING.LEAFZ",
        "$SYS.REQ.SERVER.HUB.RELOAD",
        "$SYS.ACCOUNT.<account>.CONNECT",
        "$JS.API.STREAM.NAMES",
        "_INBOX.forged",
        "_CONTROLLER.forged",
    ],
)
async def test_a_leafs_system_user_can_only_look_accounts_up(edge: Edge, system_rogue: RogueLeaf, subject: str) -> None:
    await system_rogue.publish(subject.replace("<account>", edge.account.public), edge.account.token(), "$SYS._INBOX.r")
    assert system_rogue.closed
    assert "Permissions Violation for Publish" in system_rogue.errors[0]


async def test_a_leafs_system_user_hears_of_changed_accounts_and_of_nothing_else(
    edge: Edge, system_rogue: RogueLeaf, clients: Clients
) -> None:
    for pattern in (">", "$SYS.>", "$SYS.ACCOUNT.*.CONNECT", "$SYS.SERVER.>", "_CONTROLLER.>", "_INBOX.>"):
        await system_rogue.subscribe(pattern)
    other = edge.hub.operator.account("other")
    other.scope("all", PermissionTemplate(pub_allow=(">",), sub_allow=(">",)))
    system = SystemClient(edge.hub.urls, edge.hub.operator.system_credentials, ca_bundle=edge.hub.authority.pem)
    await system.push(other.token())
    async with await Connection.open(edge.hub.url, edge.hub.authority, other.user("all")) as connection:
        await connection.client.publish("private", b"")
        await connection.settle()
    await system.lookup(other.public)
    await system.delete(edge.hub.operator.delete_token(other.public))
    await system.close()
    await eventually(lambda: "$SYS.REQ.CLAIMS.DELETE" in system_rogue.subjects(), "the last event")
    seen = {subject for subject in system_rogue.subjects() if not subject.startswith("$SYS._INBOX.")}
    assert seen == {"$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.CLAIMS.DELETE"}


async def test_a_leaf_looks_accounts_up_through_its_system_user(edge: Edge, system_rogue: RogueLeaf) -> None:
    await system_rogue.subscribe("$SYS._INBOX.rogue")
    await system_rogue.publish(f"$SYS.REQ.ACCOUNT.{edge.account.public}.CLAIMS.LOOKUP", "", "$SYS._INBOX.rogue")
    await eventually(lambda: "$SYS._INBOX.rogue" in system_rogue.subjects(), "the account's JWT")


# ── what is left (docs/security.md) ─────────────────────────────────────────────────────────────────────────────────


async def test_a_stolen_credential_can_take_the_place_of_another_node_of_its_network(
    edge: Edge, clients: Clients
) -> None:
    rogue = await RogueLeaf.connect(edge.hub, edge.account.user("leaf", name="c"), "rogue")
    await rogue.subscribe("$JS.foo-c.API.>")
    await clients.hub.client.publish("$JS.foo-c.API.STREAM.NAMES", b"{}")
    await clients.hub.settle()
    await eventually(lambda: "$JS.foo-c.API.STREAM.NAMES" in rogue.subjects(), "a request for node c")
    await rogue.close()


async def test_a_stolen_credential_overhears_replies_and_what_streams_exchange(
    clients: Clients, rogue: RogueLeaf
) -> None:
    for pattern in ("_INBOX.>", "$JS.S.>"):
        await rogue.subscribe(pattern)
    for subject in ("_INBOX.private", "$JS.S.sourced"):
        await clients.hub.client.publish(subject, b"secret")
    await clients.hub.settle()
    await eventually(lambda: {"_INBOX.private", "$JS.S.sourced"} <= set(rogue.subjects()), "both")


async def until_messages(client: Connection, stream: str, count: int, within: float = 20) -> None:
    """Wait until a stream holds so many messages."""
    context = client.client.jetstream()
    deadline = asyncio.get_running_loop().time() + within
    while (found := (await context.stream_info(stream)).state.messages) != count:
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{stream} holds {found} messages, not {count}")
        await asyncio.sleep(0.05)
