"""Streams with the driver `nack` in the real world: with a stand-in for NACK, and with the one of EDGEFARM_NACK."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from edgefarm import names
from edgefarm.nats.creds import parse_creds
from reconciler.ports import NACK_ACCOUNT, NACK_STREAM, NETWORK, POD, SECRET, STREAM
from tests.natskit import Connection, Credentials
from tests.reconciler.conftest import Site
from tests.reconciler.nackkit import NackStreams, install_nack, nack_binary, remove_nack
from tests.reconciler.streamkit import NAMESPACE, opened

SECOND = 10**9


@pytest.fixture(params=["stand-in", "real"])
async def nack(request: pytest.FixtureRequest, site: Site, work: Path) -> AsyncIterator[NackStreams]:
    """A network, and NACK at work."""
    binary = nack_binary() if request.param == "real" else None
    if request.param == "real" and binary is None:
        pytest.skip("EDGEFARM_NACK names no jetstream-controller of NACK")
    await install_nack(site.reconciler.kube)
    async with opened(site, work) as streams:
        made = NackStreams(streams, binary, work)
        made.configure("nack")
        async with made.nack():
            yield made
            await tidy(made)


async def tidy(nack: NackStreams) -> None:
    """Leave nothing behind that NACK would go on with."""
    nack.configure("native")
    await nack.settle(lambda: is_empty(nack), "nothing is left for NACK")


async def is_empty(nack: NackStreams) -> bool:
    return not await nack.objects() and await nack.login() == (None, None)


@pytest.fixture
async def plant(nack: NackStreams) -> str:
    """An EdgeNetwork with one node, whose leaf is connected."""
    streams = nack.streams
    edge = await streams.make_edge("plant")
    await streams.site.reconciler.converge()
    await streams.start_leaf("a", edge)
    await streams.add_pod("a", edge)
    await streams.site.reconciler.converge()
    return edge


async def credentials(nack: NackStreams) -> Credentials:
    """NACK's user."""
    _, secret = await nack.login()
    assert secret is not None
    return parse_creds(base64.b64decode(secret["data"]["nats.creds"]).decode())


async def test_nack_makes_a_stream_with_every_field(nack: NackStreams) -> None:
    config = {
        "storage": "memory",
        "retention": "interest",
        "discard": "new",
        "maxMsgs": 1000,
        "maxMsgsPerSubject": 10,
        "maxBytes": "100Ki",
        "maxAge": "90s",
        "maxMsgSize": 1024,
    }
    await nack.streams.make(subjects=["readings.>", "other.*"], config=config)
    await nack.streams.make("other", subjects=["else"])
    await nack.ready("readings", "other")
    found = await nack.streams.config()
    expected = {
        "name": "READINGS",
        "subjects": ["readings.>", "other.*"],
        "storage": "memory",
        "retention": "interest",
        "discard": "new",
        "max_msgs": 1000,
        "max_msgs_per_subject": 10,
        "max_bytes": 100 * 1024,
        "max_age": 90 * SECOND,
        "duplicate_window": 90 * SECOND,
        "max_msg_size": 1024,
        "num_replicas": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["metadata"][names.STREAM_OWNER] == f"{nack.streams.site.factory}/readings"
    plain = await nack.streams.config("OTHER")
    unlimited = ("max_msgs", "max_msgs_per_subject", "max_bytes", "max_msg_size", "max_consumers")
    assert {plain[name] for name in unlimited} == {-1}
    assert (plain["max_age"], plain["duplicate_window"], plain["storage"]) == (0, 120 * SECOND, "file")
    assert (await nack.streams.status())["locations"] == [
        {"domain": "main", "state": "Present", "messages": 0, "bytes": 0}
    ]


async def test_a_second_pass_and_a_new_process_write_nothing(nack: NackStreams) -> None:
    await nack.streams.make(config={"maxAge": "1m"})
    await nack.ready()
    assert await nack.streams.writes() == []
    nack.streams.site.reconciler.restart()
    assert await nack.streams.writes() == []
    await nack.streams.site.reconciler.once("nack", NAMESPACE, nack.streams.site.network)
    assert nack.streams.site.reconciler.gate.writes == []


async def test_streams_on_nodes_and_links_in_both_directions(nack: NackStreams, plant: str) -> None:
    streams = nack.streams
    await streams.make("readings", location="edge")
    await nack.ready("readings")
    await streams.make("all", link={"stream": "READINGS"})
    await streams.make("copy", location="edge", link={"stream": "ALL"})
    await streams.admit()
    await nack.ready("readings", "all", "copy")
    domain = streams.domain("a")
    assert (await streams.config("READINGS", domain))["subjects"] == ["readings.>"]
    (source,) = (await streams.config("ALL"))["sources"]
    mirror = (await streams.config("COPY", domain))["mirror"]
    assert (source["name"], source["external"]["api"]) == ("READINGS", f"$JS.{domain}.API")
    assert (mirror["name"], mirror["external"]["api"]) == ("ALL", "$JS.main.API")
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a", "readings.b"], streams.leafs["a"].url)

    async def arrived() -> bool:
        return await streams.messages("ALL") == await streams.messages("COPY", domain) == 2

    await streams.until(arrived, "messages at the hub and back on the node", within=60)
    assert await streams.states("copy") == {domain: "Present"}


async def test_nacks_user_may_manage_streams_and_nothing_else(nack: NackStreams) -> None:
    await nack.streams.make()
    await nack.ready()
    world = nack.streams.site.world
    async with await Connection.open(world.hub.url, world.authority, await credentials(nack)) as client:
        for subject in ("readings.a", "$JS.API.CONSUMER.CREATE.READINGS", "$JS.main.API.STREAM.PURGE.READINGS"):
            await client.client.publish(subject, b"{}")
        for subject in ("readings.>", ">", "$JS.API.>"):
            await client.client.subscribe(subject)
        await client.settle()
        assert len(client.errors) == 6, client.errors
    assert await nack.streams.messages() == 0


async def test_changes_that_nack_can_make_are_made_and_others_are_refused(nack: NackStreams) -> None:
    streams = nack.streams
    await streams.make(config={"maxMsgsPerSubject": 5, "maxAge": "1h"})
    await nack.ready()
    await streams.edit(subjects=["readings.*"], config={"maxMsgsPerSubject": 6, "maxAge": "30s", "maxMsgs": 7})

    async def changed() -> bool:
        found = await streams.config()
        return (found["subjects"], found["max_age"], found["max_msgs"]) == (["readings.*"], 30 * SECOND, 7)

    await nack.settle(changed, "the stream is changed")
    await nack.ready()
    await streams.edit(config={"maxMsgsPerSubject": -1, "maxAge": -1})
    await streams.site.reconciler.converge()
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "CannotChange")
    assert "maxMsgsPerSubject (from 6 to unlimited" in message
    assert (await streams.config())["max_age"] == 30 * SECOND
    await streams.edit(config={"maxMsgsPerSubject": 1_000_000, "maxAge": -1})
    await nack.ready()
    assert (await streams.config())["max_age"] == 0
    await streams.edit(config={"storage": "memory", "maxMsgsPerSubject": 1_000_000})
    await streams.site.reconciler.converge()
    assert (await streams.condition())[1] == "CannotChange"
    obj = await nack.object()
    assert obj is not None
    assert obj["spec"]["storage"] == "file"


async def test_nack_is_told_nothing_that_would_remove_data_or_touch_a_foreign_stream(nack: NackStreams) -> None:
    streams = nack.streams
    await streams.request("STREAM.CREATE.FOREIGN", {"name": "FOREIGN", "subjects": ["foreign"], "storage": "file"})
    await streams.make("foreign", subjects=["ours"])
    await streams.make()
    await nack.ready()
    assert (await streams.condition("Ready", "foreign"))[:2] == ("False", "StreamExists")
    assert await nack.object("foreign") is None
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"] * 5)
    await streams.edit(config={"maxMsgs": 2})
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "DataLoss")
    assert await streams.messages() == 5
    await streams.allow_loss()
    await nack.ready()
    assert await streams.messages() == 2
    await streams.delete("foreign")
    await streams.site.reconciler.converge()
    assert await streams.info("FOREIGN") is not None


async def test_what_nack_says_reaches_the_condition(nack: NackStreams) -> None:
    await nack.streams.make(config={"maxBytes": "20M"})

    async def refused() -> bool:
        return (await nack.streams.condition())[1] == "NackErrored"

    await nack.settle(refused, "NACK's error is told")
    _, _, message = await nack.streams.condition()
    assert "NACK says: " in message
    assert "storage" in message
    await nack.streams.edit(config={"maxBytes": "1M"})
    await nack.ready()


async def test_deletion_waits_for_nack_and_a_new_stream_of_the_name_begins_empty(nack: NackStreams) -> None:
    streams = nack.streams
    await streams.make()
    await nack.ready()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"])
    await streams.delete()

    async def gone() -> bool:
        return await streams.site.get(STREAM, "readings") is None

    await nack.settle(gone, "the Stream is gone")
    assert await streams.info() is None
    assert await nack.objects() == []
    await streams.make()
    await nack.ready()
    assert await streams.messages() == 0


async def test_what_is_on_a_node_that_is_away_is_deleted_when_it_returns(nack: NackStreams, plant: str) -> None:
    streams, domain = nack.streams, nack.streams.domain("a")
    await streams.make(location="edge")
    await nack.ready()
    await streams.stop_leaf("a")
    await streams.once()
    assert await streams.states() == {domain: "Unreachable"}
    await streams.delete()
    await streams.site.reconciler.converge()
    assert await streams.site.get(STREAM, "readings") is None
    obj = await nack.object("readings", domain)
    assert obj is not None
    assert "deletionTimestamp" in obj["metadata"]
    await streams.start_leaf("a", plant)

    async def gone() -> bool:
        return not await nack.objects() and await streams.info("READINGS", domain) is None

    await nack.settle(gone, "stream and object are gone")


async def test_a_node_that_leaves_for_good_leaves_nothing_for_nack_to_wait_for(nack: NackStreams, plant: str) -> None:
    streams, domain = nack.streams, nack.streams.domain("a")
    await streams.make("readings", location="edge")
    await streams.make("all", link={"stream": "READINGS"})
    await nack.ready("readings", "all")
    await streams.stop_leaf("a")
    await streams.site.reconciler.kube.delete(POD, NAMESPACE, f"leaf-{streams.node('a')}")

    async def released() -> bool:
        return [obj["spec"]["jsDomain"] for obj in await nack.objects()] == ["main"]

    await nack.settle(released, f"nothing is left in {domain}")
    await streams.start_leaf("a", plant)
    assert await streams.info("READINGS", domain) is not None


async def test_drift_is_mended(nack: NackStreams) -> None:
    streams, kube = nack.streams, nack.streams.site.reconciler.kube
    await streams.make()
    await nack.ready()
    obj = await nack.object()
    assert obj is not None
    name = obj["metadata"]["name"]
    await kube.patch(NACK_STREAM, NAMESPACE, name, {"spec": {"servers": ["nats://127.0.0.1:1"], "maxMsgs": 3}})

    async def mended() -> bool:
        found = await nack.object()
        return found is not None and (found["spec"].get("servers") or [], found["spec"]["maxMsgs"]) == ([], -1)

    await nack.settle(mended, "NACK's object is as it was")
    await kube.delete(SECRET, NAMESPACE, names.nack_account(streams.site.network))
    streams.site.reconciler.ahead += timedelta(minutes=6)
    await streams.once()
    assert (await nack.login())[1] is not None
    await streams.request("STREAM.DELETE.READINGS")
    await streams.once()

    async def back() -> bool:
        await streams.once()
        return await streams.states() == {"main": "Present"} and await streams.info() is not None

    await nack.settle(back, "the stream is back")


async def test_streams_are_handed_over_with_all_that_they_hold(nack: NackStreams) -> None:
    streams = nack.streams
    nack.configure("native")
    await streams.make()
    await nack.ready()
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, ["readings.a"] * 3)
    assert await is_empty(nack)
    nack.configure("nack")

    async def taken() -> bool:
        obj = await nack.object()
        return obj is not None and (obj.get("status") or {}).get("observedGeneration") == 1

    await nack.settle(taken, "NACK has taken over")
    await nack.ready()
    assert await streams.messages() == 3
    user = await credentials(nack)
    nack.configure("native")
    await nack.settle(lambda: is_empty(nack), "NACK has let go")
    assert await streams.messages() == 3
    assert await streams.writes() == []
    with pytest.raises(Exception, match=r"(?i)authorization|closed|eof"):
        await Connection.open(streams.site.world.hub.url, streams.site.world.authority, user)


async def test_credentials_are_renewed_in_time(nack: NackStreams) -> None:
    streams = nack.streams
    await streams.make()
    await nack.ready()
    first = await credentials(nack)
    streams.site.reconciler.ahead = timedelta(hours=7)
    assert await streams.writes() == []
    streams.site.reconciler.ahead = timedelta(hours=9)
    assert await streams.writes() == ["kubernetes patch Secret"] or await credentials(nack) != first
    assert await credentials(nack) != first
    assert await streams.writes() == []
    streams.site.reconciler.ahead = timedelta(0)
    await streams.edit(config={"maxMsgs": 9})
    await nack.ready()


async def test_a_foreign_secret_in_the_way_is_left_alone(nack: NackStreams) -> None:
    streams, name = nack.streams, names.nack_account(nack.streams.site.network)
    foreign = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}}
    await streams.site.reconciler.kube.create(SECRET, {**foreign, "data": {"a": "Yg=="}})
    await streams.make()
    await streams.site.reconciler.converge()
    assert (await streams.condition())[:2] == ("False", "NameTaken")
    (_, secret) = await nack.login()
    assert secret is not None
    assert secret["data"] == {"a": "Yg=="}
    await streams.site.reconciler.kube.delete(SECRET, NAMESPACE, name)
    await streams.once()
    await nack.ready()


async def test_nothing_is_left_of_a_network_that_goes(nack: NackStreams) -> None:
    streams = nack.streams
    await streams.make()
    await nack.ready()
    await streams.site.delete(NETWORK, streams.site.network)
    await nack.settle(lambda: is_empty(nack), "nothing is left for NACK")
    keys = streams.site.world.admin.keys()
    assert names.nack_key(streams.site.network) not in keys


async def test_a_cluster_without_nack_is_told_so_until_it_has_one(site: Site, work: Path) -> None:
    kube = site.reconciler.kube
    await install_nack(kube)
    await remove_nack(kube)
    async with opened(site, work) as streams:
        nack = NackStreams(streams, None, work)
        nack.configure("nack")
        await streams.make()
        await site.reconciler.converge()
        status, reason, message = await streams.condition()
        assert (status, reason) == ("False", "NackMissing")
        assert "install it with its CRDs" in message
        assert await streams.writes() == []
        await install_nack(kube)
        async with nack.nack():
            await streams.once()
            await nack.ready()
            await tidy(nack)


async def test_an_interrupted_pass_is_taken_up_by_the_next(nack: NackStreams) -> None:
    streams, call = nack.streams, 1
    await streams.site.reconciler.converge()
    await streams.make()
    while await streams.killed_at(call):
        call += 1
    assert call > 5
    await nack.ready()
    assert len(await nack.objects()) == 1
    accounts = await streams.site.reconciler.kube.list(NACK_ACCOUNT, NAMESPACE)
    assert len(accounts[0]) == 1
