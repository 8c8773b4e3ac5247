"""What a Policy lets its users consume from streams: as values, and tried on a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.nats.claims import AccountLimits
from edgefarm.nats.jetstream_rights import StoredSubjects, consumer_rights
from edgefarm.nats.subjects import covers, intersection, overlaps
from edgefarm.nats.templates import PermissionTemplate
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Hub, LocalAccount

TOKENS = st.sampled_from(["a", "b", "*"])
FILTERS = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(TOKENS, min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)
SUBJECTS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(".".join)


@given(FILTERS, FILTERS, SUBJECTS)
def test_an_intersection_matches_what_both_match(one: str, other: str, subject: str) -> None:
    both = covers(one, subject) and covers(other, subject)
    common = intersection(one, other)
    assert both == (common is not None and covers(common, subject))
    assert (common is not None) == overlaps(one, other)


def asked(allowsub: list[str], denysub: list[str], *streams: StoredSubjects) -> set[str]:
    """The filters of the consumers that may be made, as `<stream>.*.<filter>`; a bare stream for the whole of it."""
    start = "$JS.API.CONSUMER.CREATE."
    rights = consumer_rights(allowsub, denysub, streams, "mine")
    return {subject.removeprefix(start) for subject in rights.allow if subject.startswith(start)}


READINGS = StoredSubjects("READINGS", ("sensor.>",))


def test_who_may_subscribe_to_all_that_a_stream_stores_may_consume_it_in_every_form() -> None:
    assert asked(["sensor.>"], [], READINGS) == {"READINGS", "READINGS.>"}
    assert asked([">"], ["other.>"], READINGS) == {"READINGS", "READINGS.>"}


def test_who_may_subscribe_to_a_part_may_consume_that_part_only() -> None:
    assert asked(["sensor.a.>", "sensor.b"], [], READINGS) == {"READINGS.mine.sensor.a.>", "READINGS.mine.sensor.b"}
    assert asked(["*.a"], [], READINGS) == {"READINGS.mine.sensor.a"}


def test_nothing_in_common_gives_no_rights_at_all() -> None:
    assert consumer_rights(["alarm.>"], [], [READINGS], "mine").allow == frozenset()
    assert consumer_rights([], [], [READINGS], "mine").allow == frozenset()


def test_what_is_denied_is_not_consumed() -> None:
    assert asked([">"], ["sensor.secret"], READINGS) == set()
    assert asked(["sensor.a", "sensor.secret"], ["sensor.secret"], READINGS) == {"READINGS.mine.sensor.a"}


def test_a_filter_that_could_be_widened_is_withheld() -> None:
    rights = consumer_rights(["sensor.*"], [], [READINGS], "mine")
    assert rights.allow == frozenset()
    assert rights.withheld == {"READINGS: sensor.*"}
    flat = StoredSubjects("FLAT", ("sensor.*", "alarm.x"))
    assert asked(["sensor.*"], [], flat) == {"FLAT.mine.sensor.*"}


def test_streams_of_one_name_are_judged_together() -> None:
    edge = StoredSubjects("READINGS", ("secret.>",))
    assert asked(["sensor.>"], [], READINGS, edge) == {"READINGS.mine.sensor.>"}


def test_rights_are_given_with_and_without_domain() -> None:
    allow = consumer_rights(["sensor.>"], [], [READINGS], "mine").allow
    plain = {subject for subject in allow if subject.startswith("$JS.API.")}
    assert {subject.replace("$JS.API.", "$JS.*.API.") for subject in plain} <= allow
    assert {"$JS.ACK.READINGS.*.>", "$JS.FC.READINGS.*.>"} <= allow


# -- on a real server ------------------------------------------------------------------------------------------------


@pytest.fixture
async def account(hub: Hub, system: SystemClient) -> AsyncIterator[LocalAccount]:
    """An account with the stream READINGS of `sensor.>`, in which `sensor.a`, `sensor.a.b` and `sensor.c` stand."""
    account = hub.operator.account("rights", AccountLimits(mem_storage=1_000_000, disk_storage=0))
    account.scope("admin", PermissionTemplate())
    await system.push(account.token())
    async with await Connection.open(hub.url, hub.authority, account.user("admin")) as admin:
        stream = {"name": "READINGS", "subjects": ["sensor.>"], "storage": "memory"}
        assert "error" not in await ask(admin, "STREAM.CREATE.READINGS", stream)
        for subject in ("sensor.a", "sensor.a.b", "sensor.c"):
            await admin.client.request(subject, subject.encode(), timeout=5)
        yield account


async def ask(user: Connection, api: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request of the JetStream API; `error` is also set when the server does not let us ask."""
    inbox = user.client.new_inbox()
    subscription = await user.client.subscribe(inbox, max_msgs=1)
    await user.client.publish(f"$JS.API.{api}", json.dumps(body).encode(), reply=inbox)
    await user.settle()
    if user.errors:
        refused, user.errors[:] = user.errors[-1], []
        return {"error": {"description": refused}}
    message = await subscription.next_msg(timeout=5)
    answer: dict[str, Any] = json.loads(message.data)
    return answer


async def consume(user: Connection, filter_: str, *, name: str = "mine", **more: Any) -> list[str] | None:
    """Subjects that a consumer with this filter brings; None when it may not be made."""
    config = {"name": name, "filter_subject": filter_, "ack_policy": "explicit", "mem_storage": True, **more}
    body = {"stream_name": "READINGS", "config": config}
    answer = await ask(user, f"CONSUMER.CREATE.READINGS.{name}.{filter_}", body)
    if "error" in answer:
        return None
    inbox = user.client.new_inbox()
    subscription = await user.client.subscribe(inbox)
    await user.client.publish(
        f"$JS.API.CONSUMER.MSG.NEXT.READINGS.{name}", b'{"batch": 9, "no_wait": true}', reply=inbox
    )
    got = []
    while not (message := await subscription.next_msg(timeout=5)).headers or not message.headers.get("Status"):
        got.append(message.data.decode())
        await message.respond(b"+ACK")
    await user.settle()
    assert user.errors == []
    return got


async def user_with(
    hub: Hub, system: SystemClient, account: LocalAccount, allowsub: list[str], denysub: list[str]
) -> Connection:
    rights = consumer_rights(allowsub, denysub, [READINGS], "mine")
    template = PermissionTemplate(pub_allow=tuple(rights.allow), sub_allow=("_INBOX.>", *allowsub))
    account.scope("tried", template)
    await system.push(account.token())
    return await Connection.open(hub.url, hub.authority, account.user("tried"))


async def test_an_allowed_filter_is_consumed_and_another_subject_of_the_stream_is_refused(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    async with await user_with(hub, system, account, ["sensor.a.>"], []) as user:
        assert await consume(user, "sensor.a.>") == ["sensor.a.b"]
        for filter_ in ("sensor.c", "sensor.a", "sensor.>", "sensor.*", ">"):
            assert await consume(user, filter_) is None, filter_


async def test_the_body_of_a_request_cannot_widen_its_filter(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    async with await user_with(hub, system, account, ["sensor.a.>"], []) as user:
        for config in (
            {"filter_subject": "sensor.c"},
            {"filter_subject": ""},
            {"filter_subjects": ["sensor.a.>", "sensor.c"]},
            {},
        ):
            body = {"stream_name": "READINGS", "config": {"name": "mine", "ack_policy": "explicit", **config}}
            answer = await ask(user, "CONSUMER.CREATE.READINGS.mine.sensor.a.>", body)
            assert "error" in answer or answer["config"].get("filter_subject") == "sensor.a.>", (config, answer)


async def test_neither_the_whole_stream_nor_its_management_is_open_to_who_may_see_a_part(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    async with await user_with(hub, system, account, ["sensor.a.>"], []) as user:
        body = {"stream_name": "READINGS", "config": {"name": "mine", "ack_policy": "explicit"}}
        durable = {"stream_name": "READINGS", "config": {"durable_name": "mine", "ack_policy": "explicit"}}
        for api, content in (
            ("CONSUMER.CREATE.READINGS", body),
            ("CONSUMER.CREATE.READINGS.mine", body),
            ("CONSUMER.DURABLE.CREATE.READINGS.mine", durable),
            ("STREAM.INFO.READINGS", {}),
            ("STREAM.DELETE.READINGS", {}),
            ("STREAM.PURGE.READINGS", {}),
            ("STREAM.MSG.GET.READINGS", {"seq": 1}),
            ("DIRECT.GET.READINGS", {"seq": 1}),
            ("CONSUMER.LIST.READINGS", {}),
        ):
            answer = await ask(user, api, content)
            assert "ermissions" in answer["error"]["description"], (api, answer)


async def test_consumers_of_others_are_closed_to_who_may_see_a_part(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    """NATS does not know whose a consumer is, so the right is bound to a name."""
    async with await Connection.open(hub.url, hub.authority, account.user("admin")) as admin:
        config = {"durable_name": "theirs", "ack_policy": "explicit", "filter_subject": "sensor.c"}
        body = {"stream_name": "READINGS", "config": config}
        assert "error" not in await ask(admin, "CONSUMER.CREATE.READINGS.theirs.sensor.c", body)
    async with await user_with(hub, system, account, ["sensor.a.>"], []) as user:
        for api in (
            "CONSUMER.MSG.NEXT.READINGS.theirs",
            "CONSUMER.INFO.READINGS.theirs",
            "CONSUMER.CREATE.READINGS.theirs.sensor.a.>",
        ):
            answer = await ask(user, api, {})
            assert "ermissions" in answer["error"]["description"], (api, answer)
        assert await consume(user, "sensor.a.>", name="theirs") is None
        assert await consume(user, "sensor.a.>") == ["sensor.a.b"]


async def test_who_may_see_everything_consumes_with_the_requests_of_old_and_new_clients(
    hub: Hub, system: SystemClient, account: LocalAccount
) -> None:
    async with await user_with(hub, system, account, ["sensor.>"], []) as user:
        assert await consume(user, "sensor.>") == ["sensor.a", "sensor.a.b", "sensor.c"]
        body = {"stream_name": "READINGS", "config": {"ack_policy": "explicit"}}
        durable = {"stream_name": "READINGS", "config": {"durable_name": "old", "ack_policy": "explicit"}}
        assert "error" not in await ask(user, "CONSUMER.CREATE.READINGS", body)
        assert "error" not in await ask(user, "CONSUMER.DURABLE.CREATE.READINGS.old", durable)
        assert "error" not in await ask(user, "CONSUMER.INFO.READINGS.old", {})
        assert (await ask(user, "STREAM.NAMES", {"subject": "sensor.a"}))["streams"] == ["READINGS"]
        assert "error" in await ask(user, "STREAM.DELETE.READINGS", {})
