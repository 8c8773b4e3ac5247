"""What nats-server itself does when a stream changes: the facts that `reconciler.desired.streams_config` relies on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from edgefarm.nats.templates import PermissionTemplate
from localcluster.stack import Authority
from reconciler.adapters.jetstream import JetStreamPool
from reconciler.adapters.nats import SystemClient
from reconciler.desired.streams import MAIN, StreamPlan
from reconciler.desired.streams_config import Observed, Step, decide, wanted_config
from reconciler.ports import JetStream
from tests.natskit import Connection, Hub, LocalOperator
from tests.reconciler.objects import NOW
from tests.reconciler.test_stream_jetstream import Logins
from tests.reconciler.test_streams import leaf, stream

_UPDATE_REFUSED = 10052
_MIRROR_REFUSED = 10055
ANYTHING = PermissionTemplate(pub_allow=(">",), sub_allow=(">",))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    running = Hub.start(tmp_path_factory.mktemp("hub"), authority, LocalOperator())
    yield running
    running.stop()


class Server:
    """One account's JetStream, with a stream S whose fields are changed one by one."""

    def __init__(self, jetstream: JetStream, client: Connection) -> None:
        self._jetstream = jetstream
        self._client = client

    async def create(self, **config: Any) -> Observed:
        body = {"name": "S", "subjects": ["s.*"], **config}
        answer = await self._jetstream.request("main", "STREAM.CREATE.S", body)
        assert answer.error_code == 0, answer.error
        return Observed(answer.body)

    async def store(self, count: int) -> None:
        """Store messages under two subjects, in turns."""
        for number in range(count):
            answer = await self._client.client.request(f"s.{number % 2}", b"x" * 100)
            assert "error" not in json.loads(answer.data)

    async def observed(self, **body: Any) -> Observed:
        return Observed((await self._jetstream.request("main", "STREAM.INFO.S", body or None)).body)

    async def update(self, **changes: Any) -> int:
        """Send the whole configuration with changes; the error code."""
        config = {**(await self.observed()).config, **changes}
        return (await self._jetstream.request("main", "STREAM.UPDATE.S", config)).error_code


@pytest.fixture
async def server(hub: Hub) -> AsyncIterator[Server]:
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem)
    logins = Logins(hub, system)
    network = await logins.network()
    account = logins.accounts[network]
    account.scope("all", ANYTHING)
    await system.push(account.token())
    pool = JetStreamPool(hub.urls, logins, ca_bundle=hub.authority.pem)
    async with await Connection.open(hub.url, hub.authority, account.user("all")) as client:
        yield Server(pool.network(network), client)
    await pool.close()
    await system.close()


@pytest.mark.parametrize("discard", ["old", "new"])
async def test_limits_that_shrink_remove_messages_at_once_unless_new_ones_are_discarded(
    server: Server, discard: str
) -> None:
    await server.create(discard=discard)
    await server.store(10)
    assert await server.update(max_msgs=4) == 0
    assert (await server.observed()).messages == (4 if discard == "old" else 10)
    assert await server.update(max_msgs=-1, max_bytes=300) == 0
    assert (await server.observed()).size <= 300 or discard == "new"


async def test_old_messages_go_as_soon_as_discarding_them_is_chosen(server: Server) -> None:
    await server.create(discard="new")
    await server.store(10)
    assert await server.update(max_msgs=4) == 0
    assert await server.update(discard="old") == 0
    assert (await server.observed()).messages == 4


async def test_changing_to_interest_removes_what_no_consumer_waits_for(server: Server) -> None:
    await server.create()
    await server.store(3)
    assert await server.update(retention="interest") == 0
    assert (await server.observed()).messages == 0
    assert await server.update(retention="limits") == 0


@pytest.mark.parametrize(
    ("before", "changes", "code"),
    [
        ({}, {"storage": "memory"}, _UPDATE_REFUSED),
        ({}, {"retention": "workqueue"}, _UPDATE_REFUSED),
        ({"retention": "workqueue"}, {"retention": "limits"}, _UPDATE_REFUSED),
        ({"retention": "workqueue"}, {"retention": "interest"}, _UPDATE_REFUSED),
        ({}, {"subjects": [], "mirror": {"name": "M", "external": {"api": "$JS.x.API"}}}, _MIRROR_REFUSED),
        ({}, {"max_age": 10**9}, _UPDATE_REFUSED),  # shorter than the window of duplicates
        ({}, {"max_age": 10**9, "duplicate_window": 0}, 0),
        ({}, {"subjects": ["t"], "discard": "new", "max_msg_size": 5, "max_msgs_per_subject": 1}, 0),
        ({}, {"subjects": [], "sources": [{"name": "M", "external": {"api": "$JS.x.API"}}]}, 0),
        ({"subjects": [], "mirror": {"name": "M", "external": {"api": "$JS.x.API"}}}, {"mirror": None}, 0),
    ],
)
async def test_what_can_be_changed_in_place(server: Server, before: Any, changes: Any, code: int) -> None:
    await server.create(**before)
    assert await server.update(**changes) == code


@pytest.mark.parametrize("subject", ["$JS.API.>", "$SYS.x", ">", "*.x"])
async def test_subjects_of_nats_itself_are_refused_by_the_server_too(server: Server, subject: str) -> None:
    await server.create()
    assert await server.update(subjects=[subject]) == _UPDATE_REFUSED


async def test_a_server_tells_how_many_messages_each_subject_has(server: Server) -> None:
    await server.create()
    await server.store(5)
    assert (await server.observed(subjects_filter=">")).state["subjects"] == {"s.0": 3, "s.1": 2}


@pytest.mark.parametrize(
    "spec",
    [
        {"config": {}},
        {
            "config": {
                "storage": "memory",
                "retention": "interest",
                "discard": "new",
                "maxMsgs": 5,
                "maxMsgsPerSubject": 2,
                "maxBytes": 5000,
                "maxAge": "10s",
                "maxMsgSize": 100,
            }
        },
        {"link": "EDGE", "config": {"maxAge": "10s"}},
        {"link": "HUB", "location": "edge", "config": {"maxAge": "10s", "maxMsgs": 5}},
    ],
)
async def test_what_a_server_makes_of_our_configuration_compares_equal(server: Server, spec: dict[str, Any]) -> None:
    made = stream("s", **spec)
    sources = (leaf("one"), leaf("two")) if made.location == "main" else (MAIN,)
    wanted = wanted_config(StreamPlan(made, (MAIN,), sources if made.link else ()), MAIN, 1)
    first = decide(wanted, made, Observed(None), NOW)
    assert first.config is not None
    await server.create(**{"subjects": [], **first.config})
    assert decide(wanted, made, await server.observed(), NOW) == Step("equal")
