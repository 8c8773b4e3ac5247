"""Leaf or hub in mode dapr, with the daprd that EDGEFARM_DAPRD names or else with the stand-in, by the same tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nats.js.api import StreamConfig

from localcluster.process import free_port
from tests.natskit import Connection, eventually
from tests.sidecar.application import Application, publish
from tests.sidecar.leaf import QUICK, Leaf, changes, route
from tests.sidecar.world import JETSTREAM, SidecarPod, World

MakePod = Callable[..., SidecarPod]


@pytest.fixture
async def stream(world: World, leaf: Leaf) -> str:
    """A subject prefix that a stream of each of the two servers stores, as an edge network has it."""
    prefix = f"edge-{world.service_account()}"
    for opening in (world.administrator(), leaf.administrator(world)):
        async with await opening as administrator:
            await administrator.client.jetstream().add_stream(StreamConfig(name=prefix, subjects=[f"{prefix}.>"]))
    return prefix


@pytest.fixture
def application(stream: str) -> Iterator[Application]:
    """Subscribes to everything in the stream."""
    running = Application.start([f"{stream}.>"])
    yield running
    running.stop()


@pytest.fixture
async def pod(world: World, leaf: Leaf, make_dapr_pod: MakePod, stream: str, application: Application) -> SidecarPod:
    """A pod of this application, ready."""
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM), **leaf.document)
    running = make_dapr_pod(account, EDGEFARM_DAPR_APP_PORT=str(application.port), **QUICK)
    await running.until_ready()
    return running


async def test_daprd_follows_the_route_to_the_leaf_to_the_hub_and_back(
    world: World, leaf: Leaf, pod: SidecarPod, stream: str, application: Application
) -> None:
    accepted: list[int] = []
    publisher = asyncio.create_task(_publish(pod, f"{stream}.mine", accepted))
    assert route(pod) == "leaf"
    await _until_delivered(leaf.administrator(world), stream, application, "at the leaf")
    await leaf.kill()
    await _until_delivered(world.administrator(), stream, application, "at the hub")
    assert route(pod) == "hub"
    await leaf.start()
    await eventually(lambda: route(pod) == "leaf", "the leaf is taken again", 20)
    await _until_delivered(leaf.administrator(world), stream, application, "at the leaf again")
    await _until_more(accepted)
    publisher.cancel()
    await asyncio.gather(publisher, return_exceptions=True)
    stored = await _stored(leaf.administrator(world), stream) | await _stored(world.administrator(), stream)
    assert set(accepted) <= stored, "what Dapr took is in a stream"
    assert changes(pod) == 2


async def test_after_a_reboot_without_uplink_daprd_starts_at_the_leaf(
    world: World, leaf: Leaf, pod: SidecarPod, stream: str, application: Application
) -> None:
    pod.running.signal(signal.SIGKILL)
    pod.running.wait(5)
    access = pod.creds.parent / "access.json"
    document = {**json.loads(access.read_text()), "hub": [f"tls://127.0.0.1:{free_port()}"]}
    access.chmod(0o600)
    access.write_text(json.dumps(document))
    pod.environment["EDGEFARM_VAULT_ADDR"] = f"https://127.0.0.1:{free_port()}"
    pod.start()
    await pod.until_ready()
    await _until_delivered(leaf.administrator(world), stream, application, "at the leaf")
    assert route(pod) == "leaf"


async def test_a_network_that_gets_leafs_later_moves_its_daprd_which_learns_their_authority(
    world: World, leaf: Leaf, make_dapr_pod: MakePod, stream: str, application: Application
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account, EDGEFARM_DAPR_APP_PORT=str(application.port), **QUICK)
    await pod.until_ready()
    await _until_delivered(world.administrator(), stream, application, "at the hub")
    world.write_document(account, **leaf.document)
    await eventually(lambda: route(pod) == "leaf", "the leaf is taken", 20)
    await _until_delivered(leaf.administrator(world), stream, application, "at the leaf")


_marks = itertools.count(1)


async def _until_delivered(opening: Any, stream: str, application: Application, what: str) -> None:
    """Publish at a server until the application gets one of it: consumers take a while to exist."""
    connection: Connection
    async with await opening as connection:
        marks = set()
        for _ in range(100):
            mark = f"mark {next(_marks)}"
            marks.add(mark)
            event = {"id": mark, "specversion": "1.0", "type": "t", "source": "s", "data": mark}
            await connection.client.jetstream().publish(f"{stream}.theirs", json.dumps(event).encode())
            await asyncio.sleep(0.2)
            if marks & {data for data in application.data() if isinstance(data, str)}:
                return
    raise AssertionError(f"nothing was delivered {what}")


async def _publish(pod: SidecarPod, topic: str, accepted: list[int]) -> None:
    """Publish rising numbers through Dapr; note down those that it took."""
    port = int(pod.environment["EDGEFARM_DAPR_HTTP_PORT"])
    for number in itertools.count():
        try:
            status, _ = await asyncio.to_thread(publish, port, topic, number)
        except OSError:
            continue
        if status == 204:
            accepted.append(number)
        await asyncio.sleep(0.02)


async def _until_more(accepted: list[int]) -> None:
    before = len(accepted)
    await eventually(lambda: len(accepted) > before + 10, "Dapr takes messages", 20)


async def _stored(opening: Any, stream: str) -> set[int]:
    """The numbers in a server's stream."""
    connection: Connection
    async with await opening as connection:
        manager = connection.client.jetstream()
        state = (await manager.stream_info(stream)).state
        found = set()
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await manager.get_msg(stream, sequence)
            if message.subject == f"{stream}.mine" and message.data:
                found.add(json.loads(message.data)["data"])
        return found
