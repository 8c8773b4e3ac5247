"""The controller of Streams in the real world: what a Stream in the hub becomes, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import NatsUnavailable
from reconciler.ports import NETWORK, STREAM
from tests.reconciler.conftest import Site
from tests.reconciler.streamkit import LIMITS, Streams, opened

SECOND = 10**9
DAY = 86_400 * SECOND


@pytest.fixture
async def streams(site: Site, work: Path) -> AsyncIterator[Streams]:
    async with opened(site, work) as made:
        yield made


async def test_a_stream_is_made_with_every_field_of_its_config(streams: Streams) -> None:
    await streams.make(
        subjects=["readings.>", "other.*"],
        config={
            "storage": "memory",
            "retention": "interest",
            "discard": "new",
            "maxMsgs": 1000,
            "maxMsgsPerSubject": 10,
            "maxBytes": "100Ki",
            "maxAge": "1h30m",
            "maxMsgSize": 1024,
        },
    )
    await streams.site.reconciler.converge()
    config = await streams.config()
    uid = (await streams.site.get(STREAM, "readings") or {})["metadata"]["uid"]
    assert config["metadata"][names.STREAM_OWNER] == f"{streams.site.factory}/readings"
    assert config["metadata"][names.STREAM_OWNER_UID] == uid
    expected = {
        "name": "READINGS",
        "subjects": ["readings.>", "other.*"],
        "storage": "memory",
        "retention": "interest",
        "discard": "new",
        "max_msgs": 1000,
        "max_msgs_per_subject": 10,
        "max_bytes": 100 * 1024,
        "max_age": 5400 * SECOND,
        "max_msg_size": 1024,
        "num_replicas": 1,
    }
    assert {name: config[name] for name in expected} == expected
    assert (await streams.condition())[:2] == ("True", "Reconciled")
    assert (await streams.condition("Accepted"))[:2] == ("True", "Accepted")
    status = await streams.status()
    assert (status["network"], status["name"]) == (streams.site.network, "READINGS")
    assert status["locations"] == [{"domain": "main", "state": "Present", "messages": 0, "bytes": 0}]


async def test_the_age_arrives_whatever_its_unit(streams: Streams) -> None:
    ages: list[tuple[str | int, int]] = [
        ("90s", 90 * SECOND),
        ("15m", 900 * SECOND),
        ("2h", 7200 * SECOND),
        ("30d", 30 * DAY),
        ("1M", 30 * DAY),
        ("1y", 365 * DAY),
        ("1d12h", DAY * 3 // 2),
        ("-1", 0),
        (-1, 0),
    ]
    for number, (written, _) in enumerate(ages):
        await streams.make(f"age{number}", config={"maxAge": written})
    await streams.site.reconciler.converge()
    for number, (written, nanoseconds) in enumerate(ages):
        assert (await streams.config(f"AGE{number}"))["max_age"] == nanoseconds, written


async def test_a_second_pass_and_a_new_process_write_nothing(streams: Streams) -> None:
    await streams.make(config={"maxAge": "1m", "maxMsgs": 5})
    await streams.site.reconciler.converge()
    assert await streams.writes() == []
    streams.site.reconciler.restart()
    assert await streams.writes() == []
    await streams.sweep("main")
    assert streams.site.reconciler.gate.writes == []


async def test_numbers_in_the_status_follow_and_are_looked_at_ever_more_rarely(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a", "readings.b"])
    reconciler = streams.site.reconciler
    results = [await reconciler.once("stream", streams.site.factory, "readings") for _ in range(4)]
    (location,) = (await streams.status())["locations"]
    assert location["messages"] == 2
    assert location["bytes"] > 200
    assert [result.requeue_after.total_seconds() for result in results if result.requeue_after] == [30, 60, 120, 120]


async def test_changes_are_made_in_place_and_keep_what_is_stored(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"] * 3)
    await streams.edit(
        subjects=["readings.*", "other.>"],
        config={"maxMsgs": 3, "maxAge": "10s", "discard": "new", "retention": "limits", "maxMsgSize": 500},
    )
    await streams.site.reconciler.converge()
    config = await streams.config()
    assert (config["max_msgs"], config["max_age"], config["discard"]) == (3, 10 * SECOND, "new")
    assert config["subjects"] == ["readings.*", "other.>"]
    assert (await streams.condition())[0] == "True"
    await streams.edit(config={"maxAge": "-1", "maxMsgs": -1})
    await streams.site.reconciler.converge()
    assert (await streams.config())["max_age"] == 0
    assert await streams.messages() == 3
    assert await streams.writes() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"storage": "memory"}}, "spec.config.storage (from file to memory)"),
        ({"config": {"retention": "workqueue"}}, "spec.config.retention (from limits to workqueue)"),
        ({"name": "OTHER"}, "spec.name (from READINGS to OTHER)"),
    ],
)
async def test_what_cannot_be_changed_is_said_and_left_as_it_is(
    streams: Streams, change: dict[str, Any], words: str
) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    before = await streams.config()
    await streams.edit(**change)
    await streams.site.reconciler.converge()
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "CannotChange")
    assert f"{words} cannot be changed: delete the Stream and create it anew if its data may go" in message
    assert await streams.config() == before
    assert await streams.info("OTHER") is None
    await streams.edit(name="READINGS", config=None)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"


async def test_a_stream_does_not_move_between_hub_and_nodes_or_networks(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.edit(location="edge")
    await streams.site.reconciler.converge()
    assert "spec.location (from main to edge) cannot be changed" in (await streams.condition())[2]
    second = f"{streams.site.network}-second"
    await streams.site.make_network(second, limits=LIMITS)
    await streams.edit(location="main", network=second)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[1] == "CannotChange"
    assert await streams.messages() == 0
    await streams.edit(network=streams.site.network)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"


@pytest.mark.parametrize(
    "config", [{"maxMsgs": 1}, {"maxBytes": 200}, {"maxMsgsPerSubject": 1}, {"retention": "interest"}]
)
async def test_nothing_that_is_stored_is_removed_without_leave(streams: Streams, config: dict[str, Any]) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"] * 3)
    await streams.edit(config=config)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "DataLoss")
    assert (await streams.states()) == {"main": "Refused"}
    assert await streams.messages() == 3
    await streams.allow_loss()
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"
    assert await streams.messages() < 3


async def test_a_stream_of_somebody_else_is_left_alone_by_us_and_by_our_deletion(streams: Streams) -> None:
    await streams.request("STREAM.CREATE.READINGS", {"name": "READINGS", "subjects": ["foreign"]})
    await streams.make()
    await streams.site.reconciler.converge()
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "StreamExists")
    assert "main: a stream 'READINGS' exists that was not made for this Stream" in message
    assert (await streams.status())["locations"] == [{"domain": "main", "state": "Refused"}]
    assert (await streams.config())["subjects"] == ["foreign"]
    await streams.sweep("main")
    await streams.delete()
    await streams.site.reconciler.converge()
    assert await streams.site.get(STREAM, "readings") is None
    assert (await streams.config())["subjects"] == ["foreign"]


async def test_another_name_helps_against_a_stream_of_somebody_else(streams: Streams) -> None:
    await streams.request("STREAM.CREATE.READINGS", {"name": "READINGS", "subjects": ["foreign"]})
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.edit(name="MINE")
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"
    assert (await streams.config("MINE"))["subjects"] == ["readings.>"]


async def test_the_younger_stream_waits_for_the_older_one_to_go(streams: Streams) -> None:
    await streams.make("a", subjects=["readings.>"])
    await streams.site.reconciler.converge()
    await streams.make("b", subjects=["readings.x"])
    await streams.site.reconciler.converge()
    status, reason, message = await streams.condition("Accepted", "b")
    assert (status, reason) == ("False", "SubjectsOverlap")
    assert f"'readings.>' of the Stream {streams.site.factory}/a, which is older" in message
    assert (await streams.condition("Ready", "b"))[:2] == ("False", "SubjectsOverlap")
    assert await streams.info("B") is None
    await streams.delete("a")
    await streams.site.reconciler.converge()
    assert await streams.info("A") is None
    assert (await streams.config("B"))["subjects"] == ["readings.x"]
    assert (await streams.condition("Ready", "b"))[0] == "True"


async def test_without_a_network_a_stream_says_why_and_is_made_when_there_is_one(streams: Streams) -> None:
    other = f"{streams.site.network}-other"
    await streams.make(network=other)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "NetworkNotFound")
    assert (await streams.condition("Accepted"))[:2] == ("False", "NetworkNotFound")
    await streams.site.make_network(other, [streams.site.office], limits=LIMITS)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "NamespaceNotInNetwork")
    await streams.site.edit(NETWORK, other, spec={"namespaces": [streams.site.office, streams.site.factory]})
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"
    assert (await streams.status())["network"] == other


async def test_a_network_without_storage_is_named(streams: Streams) -> None:
    await streams.make(config={"storage": "memory"})
    await streams.site.edit(NETWORK, streams.site.network, spec={"limits": {"inmemorystorage": None}})
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "LimitsMissing")


async def test_what_jetstream_refuses_is_told_in_its_own_words(streams: Streams) -> None:
    await streams.make(config={"maxBytes": "1Gi"})
    await streams.site.reconciler.converge()
    assert await streams.condition() == (
        "False",
        "JetStreamRefused",
        "main: JetStream refuses it: insufficient storage resources available (10047)",
    )
    await streams.edit(config={"maxBytes": "1Mi"})
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"


async def test_a_deleted_stream_is_deleted_in_jetstream(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.delete()
    await streams.site.reconciler.converge()
    assert await streams.info() is None
    assert await streams.site.get(STREAM, "readings") is None


async def test_a_deletion_waits_for_nats_and_says_so(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    streams.site.reconciler.gate.nats_down = True
    await streams.delete()
    with pytest.raises(NatsUnavailable):
        await streams.once()
    assert (await streams.condition())[:2] == ("False", "Deleting")
    streams.site.reconciler.gate.nats_down = False
    await streams.once()
    assert await streams.site.get(STREAM, "readings") is None
    assert await streams.info() is None


async def test_a_stream_whose_network_is_gone_can_be_deleted(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.site.delete(NETWORK, streams.site.network)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "NoNetwork")
    streams.site.reconciler.gate.nats_down = True
    await streams.delete()
    await streams.once()
    assert await streams.site.get(STREAM, "readings") is None


async def test_a_network_made_anew_gets_its_streams_anew(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.site.delete(NETWORK, streams.site.network)
    await streams.site.reconciler.converge()
    await streams.site.make_network(limits=LIMITS)
    await streams.site.reconciler.converge()
    assert (await streams.condition())[0] == "True"
    assert await streams.messages() == 0


async def test_what_is_lost_or_changed_in_jetstream_is_put_back(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    await streams.request("STREAM.DELETE.READINGS")
    await streams.once()
    config = await streams.config()
    await streams.request("STREAM.UPDATE.READINGS", {**config, "subjects": ["stolen"], "max_msgs": 7})
    await streams.once()
    assert await streams.config() == config


async def test_a_mistake_in_the_spec_leaves_the_stream_as_it_is(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    before = await streams.config()
    await streams.edit(config={"maxAge": "200y200y"})
    await streams.site.reconciler.converge()
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "InvalidSpec")
    assert message.endswith("what was there before stays in place")
    assert await streams.config() == before
    await streams.delete()
    await streams.site.reconciler.converge()
    assert await streams.info() is None


async def test_while_nats_is_away_a_stream_says_so_and_keeps_its_numbers(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    before = (await streams.status())["locations"]
    streams.site.reconciler.gate.nats_down = True
    with pytest.raises(NatsUnavailable):
        await streams.once()
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "NatsUnavailable")
    assert message.endswith("it is tried again")
    assert (await streams.status())["locations"] == before
    streams.site.reconciler.gate.nats_down = False
    await streams.once()
    assert (await streams.condition())[0] == "True"


async def test_without_a_configuration_a_stream_waits(streams: Streams) -> None:
    reconciler = streams.site.reconciler
    configuration, reconciler.configuration = reconciler.configuration, None
    await streams.make()
    await streams.once()
    assert (await streams.condition())[:2] == ("False", "WaitingForConfiguration")
    assert await streams.info() is None
    reconciler.configuration = configuration
    await streams.once()
    assert (await streams.condition())[0] == "True"


async def test_what_lost_its_finalizer_is_swept_and_nothing_else(streams: Streams) -> None:
    await streams.make()
    await streams.make("other")
    await streams.request("STREAM.CREATE.FOREIGN", {"name": "FOREIGN", "subjects": ["foreign"]})
    await streams.site.reconciler.converge()
    await streams.site.edit(STREAM, "readings", metadata={"finalizers": None})
    await streams.delete()
    assert await streams.messages() == 0
    await streams.sweep("main")
    assert await streams.info() is None
    assert await streams.messages("OTHER") == 0
    assert await streams.messages("FOREIGN") == 0


async def test_a_stream_made_again_does_not_take_over_what_an_earlier_one_left(streams: Streams) -> None:
    await streams.make()
    await streams.site.reconciler.converge()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"])
    await streams.site.edit(STREAM, "readings", metadata={"finalizers": None})
    await streams.delete()
    await streams.make()
    await streams.once()
    assert (await streams.condition())[1] == "StreamExists"
    await streams.sweep("main")
    await streams.once()
    assert (await streams.condition())[0] == "True"
    assert await streams.messages() == 0


async def test_a_pass_that_was_killed_anywhere_is_made_good_by_the_next(streams: Streams) -> None:
    for call in itertools.count(1):
        name = f"s{call}"
        await streams.make(name, config={"maxMsgs": 5})
        killed = await streams.killed_at(call, name)
        await streams.once(name)
        assert (await streams.config(name.upper()))["max_msgs"] == 5
        assert (await streams.condition("Ready", name))[0] == "True"
        assert await streams.writes(name) == []
        await streams.delete(name)
        killed_again = await streams.killed_at(call, name)
        await streams.once(name)
        assert await streams.info(name.upper()) is None
        assert await streams.site.get(STREAM, name) is None
        if not killed and not killed_again:
            assert call > 3
            return
