"""The controller of Streams on edge nodes: real leafs that come, go and come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgefarm import names
from reconciler.ports import POLICY, STREAM
from tests.reconciler.conftest import Site
from tests.reconciler.streamkit import Streams, opened

SUBJECTS = ["readings.>", "other.>"]


@pytest.fixture
async def streams(site: Site, work: Path) -> AsyncIterator[Streams]:
    async with opened(site, work) as made:
        yield made


@pytest.fixture
async def plant(streams: Streams) -> str:
    """An EdgeNetwork with two nodes whose leafs are connected."""
    edge = await streams.make_edge("plant")
    await streams.settle()
    for node in ("a", "b"):
        await streams.start_leaf(node, edge)
        await streams.add_pod(node, edge)
    await streams.settle()
    return edge


async def publish_at(streams: Streams, node: str, *subjects: str) -> None:
    """Publish on a node."""
    sensor = streams.site.world.credentials(streams.site.network, streams.site.factory, "sensor")
    await streams.publish(sensor, list(subjects), streams.leafs[node].url)


async def test_an_edge_stream_is_on_every_node_and_linked_ones_collect_and_copy(streams: Streams, plant: str) -> None:
    await streams.make("readings", location="edge", config={"maxAge": "1h"})
    await streams.settle()
    await streams.make("all", link={"stream": "READINGS"})
    await streams.make("copy", location="edge", link={"stream": "ALL"})
    await streams.admit()
    await streams.settle()
    for node in ("a", "b"):
        config = await streams.config("READINGS", streams.domain(node))
        assert (config["subjects"], config["max_age"]) == (["readings.>"], 3600 * 10**9)
        mirror = (await streams.config("COPY", streams.domain(node)))["mirror"]
        assert (mirror["name"], mirror["external"]["api"]) == ("ALL", "$JS.main.API")
    assert {source["external"]["api"] for source in (await streams.config("ALL"))["sources"]} == {
        f"$JS.{streams.domain(node)}.API" for node in ("a", "b")
    }
    for name in ("readings", "all", "copy"):
        assert (await streams.condition("Ready", name))[:2] == ("True", "Reconciled")
        assert await streams.writes(name) == []
    await publish_at(streams, "a", "readings.a", "readings.b")
    await publish_at(streams, "b", "readings.c")
    for stream, node in (("ALL", None), ("COPY", "a"), ("COPY", "b")):
        domain = streams.domain(node) if node else "main"
        await streams.until(lambda s=stream, d=domain: has(streams, s, d, 3), f"3 messages in {stream} of {domain}", 90)
    for name in ("readings", "all", "copy"):
        await streams.once(name)
    locations = {entry["domain"]: entry for entry in (await streams.status("readings"))["locations"]}
    assert {domain: entry["messages"] for domain, entry in locations.items()} == {
        streams.domain("a"): 2,
        streams.domain("b"): 1,
    }
    assert locations[streams.domain("a")]["node"] == streams.node("a")
    (main,) = (await streams.status("all"))["locations"]
    assert (main["domain"], main["messages"], main["lag"]) == ("main", 3, 0)
    assert "lag" not in locations[streams.domain("a")]


async def has(streams: Streams, stream: str, domain: str, messages: int) -> bool:
    return await streams.messages(stream, domain) == messages


async def test_a_node_that_is_away_is_a_fact_and_gets_its_stream_when_it_returns(streams: Streams, plant: str) -> None:
    await streams.stop_leaf("b")
    await streams.make(location="edge")
    await streams.make("all", link={"stream": "READINGS"})
    await streams.settle()
    a, b = streams.domain("a"), streams.domain("b")
    assert await streams.states() == {a: "Present", b: "Unreachable"}
    status, _, message = await streams.condition()
    assert (status, message) == ("True", f"is as it shall be in 1 of 2 domains; away: {b}")
    assert len((await streams.config("ALL"))["sources"]) == 2
    assert (await streams.condition("Ready", "all"))[0] == "True"
    assert await streams.writes() == []
    await streams.start_leaf("b", plant)
    await streams.settle()  # woken by nothing but the leaf's connection
    assert await streams.states() == {a: "Present", b: "Present"}
    assert await streams.messages(domain=b) == 0


async def test_where_no_node_can_be_reached_nothing_is_ready(streams: Streams, plant: str) -> None:
    await streams.stop_leaf("a")
    await streams.stop_leaf("b")
    await streams.make(location="edge")
    await streams.settle()
    assert (await streams.condition())[:2] == ("False", "Unreachable")


async def test_a_change_reaches_a_node_when_it_returns(streams: Streams, plant: str) -> None:
    await streams.make(location="edge")
    await streams.settle()
    await streams.stop_leaf("b")
    await streams.edit(config={"maxMsgs": 7})
    await streams.settle()
    assert (await streams.config(domain=streams.domain("a")))["max_msgs"] == 7
    await streams.start_leaf("b", plant)
    await streams.settle()
    assert (await streams.config(domain=streams.domain("b")))["max_msgs"] == 7


async def test_what_was_deleted_while_a_node_was_away_is_deleted_there_on_its_return(
    streams: Streams, plant: str
) -> None:
    await streams.make(location="edge")
    await streams.make("other", location="edge")
    await streams.settle()
    await streams.request(
        "STREAM.CREATE.FOREIGN", {"name": "FOREIGN", "subjects": ["foreign"]}, domain=streams.domain("b")
    )
    await streams.stop_leaf("b")
    await streams.delete()
    await streams.settle()
    assert await streams.site.get(STREAM, "readings") is None
    assert await streams.info(domain=streams.domain("a")) is None
    await streams.start_leaf("b", plant)
    assert await streams.messages(domain=streams.domain("b")) == 0

    async def swept() -> bool:
        await streams.settle()
        await streams.sweep(streams.domain("b"))  # comes again by itself where the domain was not there yet
        return await streams.info(domain=streams.domain("b")) is None

    await streams.until(swept, "what was deleted is gone from b, too")
    assert await streams.messages("FOREIGN", streams.domain("b")) == 0
    assert await streams.messages("OTHER", streams.domain("b")) == 0


async def test_a_node_that_leaves_is_no_longer_collected_from(streams: Streams, plant: str) -> None:
    await streams.make(location="edge")
    await streams.make("all", link={"stream": "READINGS"})
    await streams.settle()
    await streams.remove_pod("b")
    await streams.settle()
    (source,) = (await streams.config("ALL"))["sources"]
    assert source["external"]["api"] == f"$JS.{streams.domain('a')}.API"
    assert await streams.states() == {streams.domain("a"): "Present"}
    assert await streams.messages(domain=streams.domain("b")) == 0  # on its disk, until it is chosen again
    await streams.add_pod("b", plant)
    await streams.settle()
    assert len((await streams.config("ALL"))["sources"]) == 2


async def test_without_nodes_a_stream_waits_for_the_first(streams: Streams) -> None:
    edge = await streams.make_edge("plant")
    await streams.make(location="edge")
    await streams.make("all", link={"stream": "READINGS"})
    await streams.settle()
    for name in ("readings", "all"):
        assert (await streams.condition("Ready", name))[:2] == ("False", "NoEdgeNodes")
        assert (await streams.condition("Accepted", name))[0] == "True"
    assert await streams.info("ALL") is None
    await streams.start_leaf("a", edge)
    await streams.add_pod("a", edge)
    await streams.settle()
    assert (await streams.condition())[0] == "True"
    assert len((await streams.config("ALL"))["sources"]) == 1
    await streams.remove_pod("a")
    await streams.settle()
    assert (await streams.condition())[:2] == ("False", "NoEdgeNodes")
    assert await streams.states() == {}
    assert await streams.states("all") == {names.MAIN_DOMAIN: "Present"}


async def test_a_stream_leaves_the_nodes_of_an_edge_network_only_without_losing_messages(
    streams: Streams, plant: str
) -> None:
    office = await streams.make_edge("office")
    await streams.settle()
    await streams.start_leaf("c", office)
    await streams.add_pod("c", office)
    await streams.make(location="edge")
    await streams.settle()
    await publish_at(streams, "a", "readings.a")
    await streams.edit(edgeNetwork=office)
    await streams.settle()
    a, b, c = map(streams.domain, "abc")
    assert await streams.states() == {a: "Refused", c: "Present"}
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "DataLoss")
    assert f"{a}: is no longer wanted here, but holds 1 messages" in message
    assert await streams.info(domain=b) is None
    await streams.allow_loss()
    await streams.settle()
    assert await streams.info(domain=a) is None
    assert await streams.states() == {c: "Present"}
    assert (await streams.condition())[0] == "True"


async def test_somebody_elses_stream_on_one_node_is_left_alone_and_named(streams: Streams, plant: str) -> None:
    a, b = streams.domain("a"), streams.domain("b")
    await streams.request("STREAM.CREATE.READINGS", {"name": "READINGS", "subjects": ["foreign"]}, domain=b)
    await streams.make(location="edge")
    await streams.settle()
    assert await streams.states() == {a: "Present", b: "Refused"}
    status, reason, message = await streams.condition()
    assert (status, reason) == ("False", "StreamExists")
    assert message.startswith(f"{b}: ")
    assert (await streams.config(domain=b))["subjects"] == ["foreign"]


async def test_an_edge_network_may_allow_less_than_the_network(streams: Streams) -> None:
    small = await streams.make_edge("small", limits={"filestorage": "1M"})
    await streams.settle()
    await streams.start_leaf("a", small)
    await streams.add_pod("a", small)
    await streams.make(location="edge")
    await streams.make("other", location="edge", config={"maxBytes": "800k"})
    await streams.settle()
    assert (await streams.condition())[:2] == ("False", "MaxBytesRequired")
    assert (await streams.condition("Ready", "other"))[0] == "True"
    await streams.edit(config={"maxBytes": "300k"})
    await streams.settle()
    assert "LimitExceeded" in {(await streams.condition("Ready", name))[1] for name in ("readings", "other")}


async def test_a_node_that_returns_after_its_network_lost_a_policy_keeps_its_streams(
    streams: Streams, plant: str
) -> None:
    await streams.make(location="edge")
    await streams.settle()
    await publish_at(streams, "b", "readings.a")
    await streams.stop_leaf("b")
    await streams.site.delete(POLICY, "sensor")
    await streams.settle()
    await streams.start_leaf("b", plant)
    await streams.settle()
    assert await streams.messages(domain=streams.domain("b")) == 1
    assert names.MAIN_DOMAIN not in await streams.states()
