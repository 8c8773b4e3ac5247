"""A leaf whose disk is full: a small file system under all that it keeps, a real nats-server and a real sidecar."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from sidecar.leaf.disk import ROOM, Disk
from tests.natskit import Connection, eventually
from tests.sidecar_leaf.conftest import MakePod
from tests.sidecar_leaf.test_start import fill, run
from tests.sidecar_leaf.world import LeafPod, World

#: Bytes that are left on the small file system for streams.
LEFT = 500_000


@asynccontextmanager
async def on_a_small_disk(pod: LeafPod) -> AsyncIterator[Path]:
    """The pod runs on a file system of its own, of which most is taken by the file that is given."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    pod.data.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=2m", "leaf-test", str(pod.data))
    try:
        await pod.up()
        filler = pod.data / "filler"
        filler.write_bytes(bytes(1_500_000))
        yield filler
    finally:
        await asyncio.to_thread(pod.stop)
        await run("umount", str(pod.data))


async def store_until_refused(stream: JetStreamContext, subject: str) -> list[int]:
    """Publish numbers until one is not acknowledged; those that were."""
    stored: list[int] = []
    while len(stored) * 1000 < 2 * LEFT:
        body = json.dumps({"number": len(stored), "rest": "x" * 1000}).encode()
        try:
            await stream.publish(subject, body, timeout=2)
        except NatsError:
            return stored
        stored.append(len(stored))
    raise AssertionError("more was stored than the disk holds")


async def numbers_in(connection: Connection, name: str) -> list[int]:
    """What a stream holds, in its order."""
    stream = connection.client.jetstream()
    count = (await stream.stream_info(name)).state.messages
    subscription = await stream.pull_subscribe("", stream=name, durable="reader")
    found: list[int] = []
    while len(found) < count:
        for message in await subscription.fetch(min(100, count - len(found)), timeout=5):
            found.append(json.loads(message.data)["number"])
            await message.ack()
    return found


async def test_a_full_disk_is_told_to_publishers_and_spoils_nothing_and_with_room_it_goes_on(
    world: World, make_pod: MakePod
) -> None:
    pod = await make_pod(await world.edge_network())
    async with on_a_small_disk(pod) as filler:
        async with await pod.connect(world.user()) as application:
            stream = application.client.jetstream()
            await stream.add_stream(name="FULL", subjects=["live.full"])
            stored = await store_until_refused(stream, "live.full")
            assert len(stored) > 100
            heard = await application.client.subscribe("live.here")  # live messages go on
            await application.client.publish("live.here", b"here")
            assert (await heard.next_msg(timeout=5)).data == b"here"
            await pod.until_says("JetStream no longer writes to a stream until there is room on the node's disk")
            assert pod.connected()
            assert pod.metric("leaf_storage_written") == 0
            assert pod.nats is not None
            assert pod.nats.returncode is None  # a restart would not help
        filler.unlink()
        await eventually(lambda: pod.nats is not None and pod.nats.returncode is not None, "it is told to end", 20)
        pod.start_nats()  # as kubelet does
        await eventually(lambda: pod.metric("leaf_storage_written") == 1, "all is well", 20)
        async with await pod.connect(world.user()) as application:
            assert await numbers_in(application, "FULL") == stored
            body = json.dumps({"number": len(stored)}).encode()
            assert (await application.client.jetstream().publish("live.full", body)).seq == len(stored) + 1
        await pod.until_connected()


async def test_a_leaf_that_starts_on_a_full_disk_serves_its_node(world: World, make_pod: MakePod) -> None:
    pod = await make_pod(await world.edge_network())
    async with on_a_small_disk(pod) as filler:
        async with await pod.connect(world.user()) as application:
            stream = application.client.jetstream()
            await stream.add_stream(name="KEPT", subjects=["live.kept"])
            for number in range(50):
                await stream.publish("live.kept", json.dumps({"number": number}).encode())
        rest = filler.with_name("rest")
        fill(rest)
        pod.kill(pod.nats)
        pod.start_nats()
        async with await pod.connect(world.user()) as application:
            heard = await application.client.subscribe("live.here")
            await application.client.publish("live.here", b"here")
            assert (await heard.next_msg(timeout=5)).data == b"here"
        rest.unlink()
        filler.unlink()
        pod.kill(pod.nats)
        pod.start_nats()
        async with await pod.connect(world.user()) as application:
            assert await numbers_in(application, "KEPT") == list(range(50))


@pytest.mark.parametrize(
    ("disk", "calls"),
    [
        (Disk(), False),
        (Disk("write error", free=0, size=2**40), False),
        (Disk("write error", free=ROOM - 1, size=2**40), False),
        (Disk("write error", free=ROOM, size=2**40), True),
        (Disk("write error", free=2**20, size=20 * 2**20), True),
        (Disk("", free=2**40, size=2**40), False),
    ],
)
def test_a_restart_is_called_for_only_when_it_would_help(disk: Disk, calls: bool) -> None:
    assert disk.calls_for_restart is calls
