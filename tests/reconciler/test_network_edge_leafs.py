"""Networks whose leafs come and go, and what JetStream holds for them: real hub, real leafs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.js.api import ConsumerConfig

from edgefarm import names
from edgefarm.nats import jwt
from reconciler.ports import EDGE_NETWORK, NETWORK, POLICY, STREAM, Object
from tests.leafkit import Leaf
from tests.natskit import Connection, Credentials, eventually
from tests.reconciler.conftest import Site
from tests.reconciler.leafs import make_leaf

NAMESPACE = names.CONTROLLER_NAMESPACE
LIMITS = {"filestorage": "10M", "inmemorystorage": "1M"}
#: Seconds in which a key that was removed while a leaf was away must be dead there.
DEAD_WITHIN = 10.0


@pytest.fixture
async def edge(site: Site) -> Site:
    """A network with an EdgeNetwork, and Policies `sensor` and `other`."""
    await site.make_network(limits=LIMITS)
    await site.make_policy("sensor", allowpub=["sensor.>"], allowsub=["sensor.>"])
    await site.make_policy("other", allowpub=["other.>"])
    body = _object("EdgeNetwork", NAMESPACE, plant(site), {"network": site.network, "limits": LIMITS})
    await site.reconciler.kube.create(EDGE_NETWORK, body)
    await site.reconciler.converge()
    return site


@pytest.fixture
async def leaf(edge: Site, work: Path) -> AsyncIterator[Leaf]:
    """A leaf that is connected."""
    started = make_leaf(edge, work / "leaf", plant(edge), "node-1").start()
    try:
        await started.until_connected()
        yield started
    finally:
        started.stop()


def plant(site: Site) -> str:
    return f"plant-{site.network}"


def _object(kind: str, namespace: str, name: str, spec: dict[str, Any]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


async def make_stream(site: Site, name: str, subjects: list[str], location: str = "edge") -> None:
    spec = {"name": name.upper(), "location": location, "subjects": subjects, "config": {"maxBytes": "1M"}}
    await site.reconciler.kube.create(STREAM, _object("Stream", site.factory, name, spec))


async def login(site: Site, url: str, credentials: Credentials) -> Connection:
    return await Connection.open(url, site.world.authority, credentials)


async def is_refused(site: Site, url: str, credentials: Credentials) -> bool:
    try:
        connection = await login(site, url, credentials)
    except nats.errors.Error:
        return True
    await connection.client.close()
    return False


async def look(site: Site) -> None:
    """What the reconciler does when the leaf monitor tells it of leafs."""
    await site.reconciler.see_leafs()
    await site.reconciler.once("network", NAMESPACE, site.network)


async def test_a_key_that_was_removed_while_a_leaf_was_away_dies_when_it_returns(edge: Site, leaf: Leaf) -> None:
    sensor = edge.world.credentials(edge.network, edge.factory, "sensor")
    other = edge.world.credentials(edge.network, edge.factory, "other")
    async with await login(edge, leaf.url, sensor), await login(edge, leaf.url, other):
        pass
    await look(edge)
    edge.world.hub.stop()
    try:
        await eventually(lambda: not leaf.connected(), "the uplink is down")
        client = await login(edge, leaf.url, sensor)
        stays = await login(edge, leaf.url, other)
        # It must not be back before its account has changed.
        leaf.running.suspend()
    finally:
        edge.world.restart_hub()
    try:
        await edge.delete(POLICY, "sensor")
        await edge.reconciler.converge()
    finally:
        leaf.running.resume()
    assert not client.closed.is_set()
    await leaf.until_connected()
    returned = time.monotonic()
    while not client.closed.is_set() and time.monotonic() < returned + DEAD_WITHIN:
        await look(edge)
        await asyncio.sleep(0.1)
    assert client.closed.is_set()
    assert not stays.closed.is_set()
    assert await is_refused(edge, leaf.url, sensor)
    await stays.client.close()
    await client.client.close()


async def test_a_removed_key_dies_at_a_leaf_whose_own_credentials_the_hub_refuses_on_return(
    edge: Site, leaf: Leaf
) -> None:
    """While Vault is away, such a leaf gets no other credentials; over the system account it hears all the same."""
    sensor = edge.world.credentials(edge.network, edge.factory, "sensor")
    async with await login(edge, leaf.url, sensor):
        pass
    await look(edge)
    edge.world.hub.stop()
    try:
        await eventually(lambda: not leaf.connected(), "the uplink is down")
        client = await login(edge, leaf.url, sensor)
        leaf.running.suspend()
    finally:
        edge.world.restart_hub()
    try:
        await edge.delete(POLICY, "sensor")
        annotations = {f"{names.PREFIX}revoke-keys-before": datetime.now(UTC).isoformat()}
        await edge.edit(EDGE_NETWORK, plant(edge), NAMESPACE, metadata={"annotations": annotations})
        await edge.reconciler.converge()
    finally:
        leaf.running.resume()
    await eventually(lambda: leaf.connected() == {leaf.server.system_account}, "the hub knows only the system user")
    returned = time.monotonic()
    while not client.closed.is_set() and time.monotonic() < returned + DEAD_WITHIN:
        await edge.reconciler.see_leafs()
        await edge.reconciler.converge()
        await asyncio.sleep(0.1)
    assert client.closed.is_set()
    assert await edge.account() not in leaf.connected()
    assert await is_refused(edge, leaf.url, sensor)
    await client.client.close()


async def test_a_leaf_that_has_returned_is_told_once(edge: Site, leaf: Leaf) -> None:
    edge.reconciler.gate.reset()
    async with asyncio.timeout(5):
        while not edge.reconciler.gate.writes:
            await look(edge)
    for _ in range(2):
        await look(edge)
    assert edge.reconciler.gate.writes == ["nats push"]
    leaf.stop()
    leaf.start()
    await leaf.until_connected()
    async with asyncio.timeout(5):
        while len(edge.reconciler.gate.writes) < 2:
            await look(edge)
    await look(edge)
    assert edge.reconciler.gate.writes == ["nats push"] * 2
    assert edge.reconciler.events.seen == []


async def test_streams_go_with_the_network_on_the_hub_and_on_nodes_that_are_there(edge: Site, leaf: Leaf) -> None:
    jetstream = edge.reconciler.context.jetstream(edge.network)
    domains = (names.MAIN_DOMAIN, leaf.server.domain)
    for domain in domains:
        for number in range(3):
            config = {"name": f"S{number}", "subjects": [f"s{number}.{domain}"], "storage": "file"}
            answer = await jetstream.request(domain, f"STREAM.CREATE.S{number}", config)
            assert not answer.error
    folders = [edge.world.folder / "hub" / "jetstream", leaf.folder / "jetstream"]
    account = await edge.account()
    stored = [next(folder.rglob(account)) for folder in folders]
    assert all(list(folder.rglob("S0")) for folder in stored)
    await edge.reconciler.see_leafs()
    await edge.delete(NETWORK, edge.network)
    await edge.reconciler.converge()
    assert await edge.get(NETWORK, edge.network) is None
    assert not [found for folder in stored for found in folder.rglob("S?")]
    assert not any(edge.world.held(edge.network).values())


async def test_a_node_that_is_away_does_not_keep_a_network_from_going(edge: Site, leaf: Leaf) -> None:
    await edge.reconciler.see_leafs()
    leaf.stop()
    await edge.delete(NETWORK, edge.network)
    await edge.reconciler.converge()
    assert await edge.get(NETWORK, edge.network) is None


async def test_storage_that_the_hub_cannot_set_aside_is_told_and_tried_again(site: Site) -> None:
    await site.make_network(limits={"filestorage": "1Pi"})
    await site.reconciler.converge()
    status, reason, message = await site.condition(NETWORK, site.network, "JetStreamReserved")
    assert (status, reason) == ("False", "NotReserved")
    assert f"{2**50} bytes on disk" in message
    assert (await site.condition(NETWORK, site.network, "Ready"))[:2] == ("False", "NotReserved")
    before = await issued(site)
    site.reconciler.ahead += site.world.configuration.resync
    await site.reconciler.once("network", NAMESPACE, site.network)
    assert await issued(site) != before
    await site.edit(NETWORK, site.network, spec={"limits": {"filestorage": "1M"}})
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "JetStreamReserved"))[:2] == ("True", "Reserved")
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"
    await site.edit(NETWORK, site.network, spec={"limits": {"filestorage": "1Pi"}})
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "JetStreamReserved"))[0] == "False"


async def issued(site: Site) -> str:
    (answer,) = await site.reconciler.context.nats().lookup(await site.account())
    assert answer.jwt is not None
    return str(jwt.decode(answer.jwt)["jti"])


async def test_a_network_without_limits_says_nothing_of_storage(site: Site) -> None:
    await site.make_network()
    await site.reconciler.converge()
    assert await site.condition(NETWORK, site.network, "JetStreamReserved") == ("", "", "")


async def test_a_policy_may_consume_what_it_may_subscribe_to_and_no_more(edge: Site) -> None:
    """An empty allowpub stays empty, but for the requests that consuming takes."""
    await make_stream(edge, "readings", ["sensor.>"], location="main")
    await edge.make_policy("reader", allowsub=["sensor.a.>"])
    await edge.reconciler.converge()
    sensor = edge.world.credentials(edge.network, edge.factory, "sensor")
    reader = edge.world.credentials(edge.network, edge.factory, "reader")
    url = edge.world.hub.url
    async with await login(edge, url, sensor) as publisher, await login(edge, url, reader) as consumer:
        for subject in ("sensor.a.1", "sensor.b.1"):
            await publisher.client.jetstream().publish(subject, subject.encode())
        pulled = await consumer.client.jetstream().pull_subscribe(
            "sensor.a.>",
            names.consumer(edge.factory, "reader"),
            "READINGS",
            config=ConsumerConfig(filter_subject="sensor.a.>"),
        )
        (message,) = await pulled.fetch(1, timeout=5)
        assert message.data == b"sensor.a.1"
        with pytest.raises(nats.errors.TimeoutError):
            await consumer.client.jetstream(timeout=0.5).add_consumer(
                "READINGS", ConsumerConfig(name="all", filter_subject="sensor.>")
            )
        consumer.errors.clear()
        await consumer.client.publish("sensor.a.2", b"forged")
        await consumer.settle()
        assert "permissions violation" in consumer.errors[0].lower()


async def test_leafs_do_not_hear_from_elsewhere_what_their_nodes_store(edge: Site) -> None:
    await edge.make_policy("watcher", allowsub=["sensor.>", "other.>"])
    await edge.reconciler.converge()
    assert {"sensor.>", "other.>"} <= await heard_by_leafs(edge)
    await make_stream(edge, "readings", ["sensor.>"])
    await make_stream(edge, "copies", ["other.>"], location="main")
    await edge.reconciler.converge()
    assert {"sensor.>", "other.>"} & await heard_by_leafs(edge) == {"other.>"}
    await edge.delete(STREAM, "readings")
    await edge.reconciler.converge()
    assert {"sensor.>", "other.>"} <= await heard_by_leafs(edge)


async def heard_by_leafs(site: Site) -> set[str]:
    """What the hub sends to leafs, from the account as the server holds it."""
    (answer,) = await site.reconciler.context.nats().lookup(await site.account())
    assert answer.jwt is not None
    entries = {entry["role"]: entry["template"] for entry in jwt.decode(answer.jwt)["nats"]["signing_keys"]}
    return set(entries[f"leaf.{plant(site)}"]["sub"]["allow"])
