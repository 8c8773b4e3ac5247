"""The sidecar in mode dapr, with the daprd that EDGEFARM_DAPRD names or else with the stand-in, by the same tests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import StreamConfig

from sidecar.connections import established
from tests.natskit import eventually
from tests.sidecar.application import Application, publish
from tests.sidecar.world import JETSTREAM, SidecarPod, World

MakePod = Callable[..., SidecarPod]


@pytest.fixture
async def stream(world: World) -> str:
    """A subject prefix of this test that a stream stores."""
    prefix = f"dapr-{world.service_account()}"
    async with await world.administrator() as administrator:
        await administrator.client.jetstream().add_stream(StreamConfig(name=prefix, subjects=[f"{prefix}.>"]))
    return prefix


@pytest.fixture
def application(stream: str) -> Iterator[Application]:
    """Subscribes to everything in the stream."""
    running = Application.start([f"{stream}.>"])
    yield running
    running.stop()


async def test_an_application_publishes_through_dapr_what_its_policy_allows(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account)
    await pod.until_ready()
    async with _received(world, f"{stream}.>") as received:
        assert await _publish(pod, f"{stream}.temperature", {"celsius": 21}) == (204, "")
        await eventually(lambda: len(received) == 1, "received")
        event = json.loads(received[0])
    assert event["data"] == {"celsius": 21}
    assert (event["specversion"], event["pubsubname"], event["topic"]) == ("1.0", "network", f"{stream}.temperature")
    assert await _publish(pod, "somebody.else", {}) == (500, "ERR_PUBSUB_PUBLISH_MESSAGE")
    status, body = await asyncio.to_thread(publish, _port(pod), "a", {}, "other")
    assert (status, body["errorCode"]) == (404, "ERR_PUBSUB_NOT_FOUND")


async def test_an_application_receives_through_dapr_and_decides_what_comes_again(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, JETSTREAM)
    answers = [(200, {"status": "RETRY"}), (200, {"status": "SUCCESS"}), (200, {"status": "DROP"}), (404, {})]
    application = Application.start([f"{stream}.>"], answers)
    pod = make_dapr_pod(account, EDGEFARM_DAPR_APP_PORT=str(application.port))
    await pod.until_ready()
    await _until_subscribed(world, stream)
    async with await world.administrator() as administrator:
        for number in range(3):
            event = {"id": f"{number}", "specversion": "1.0", "type": "t", "source": "s", "data": number}
            await administrator.client.publish(f"{stream}.a", json.dumps(event).encode())
            await eventually(lambda expected=number: expected in application.data(), "delivered")  # type: ignore[misc]
    await eventually(lambda: len(application.events) == 4, "one of three came again")
    assert sorted(event["data"] for event in application.events) == [0, 0, 1, 2]
    application.stop()


async def test_a_renewal_that_daprd_needs_reloads_the_component_and_loses_no_message(
    world: World, make_dapr_pod: MakePod, stream: str, application: Application
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM), renewEverySeconds=5, lifetimeSeconds=10)
    pod = make_dapr_pod(account, EDGEFARM_DAPR_APP_PORT=str(application.port))
    await pod.until_ready()
    await _until_subscribed(world, stream)
    child, before = _daprd(pod), pod.credentials()[0]
    sent = 0
    async with await world.administrator() as administrator:
        while pod.credentials()[0] == before or sent < 100:
            event = {"id": f"{sent}", "specversion": "1.0", "type": "t", "source": "s", "data": sent}
            await administrator.client.jetstream().publish(f"{stream}.a", json.dumps(event).encode())
            sent += 1
            await asyncio.sleep(0.05)
        await eventually(lambda: len(set(application.data())) == sent, f"all {sent} received", 20)
    assert _daprd(pod) == child, "the same process"
    assert "daprd loads the component again" in pod.log()
    await _until_published(pod, f"{stream}.b")


async def test_a_renewal_long_before_the_end_leaves_the_connection_of_daprd_alone(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM), renewEverySeconds=2)
    pod = make_dapr_pod(account)
    await pod.until_ready()
    before, connections = pod.credentials()[0], established(_daprd(pod), [world.hub.url])
    assert len(connections) == 1
    await pod.until_renewed(before)
    await pod.until_renewed(pod.credentials()[0])
    assert established(_daprd(pod), [world.hub.url]) == connections


async def test_after_the_key_was_rotated_dapr_comes_back_by_itself(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account)
    await pod.until_ready()
    await _until_published(pod, f"{stream}.a")
    before = pod.credentials()[0]
    await world.rotate(account)
    await pod.until_renewed(before)
    await _until_published(pod, f"{stream}.a")


async def test_a_connection_that_is_lost_without_a_new_key_is_noticed_and_mended(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account, EDGEFARM_REFRESH_SECONDS="3600")
    await pod.until_ready()
    scope = world.scopes.pop(account)
    await world.push()  # daprd's client gives up after two refusals
    await asyncio.to_thread(_until_disconnected, pod, world)
    world.scopes[account] = scope
    await world.push()
    await _until_published(pod, f"{stream}.a", within=40)


async def test_a_daprd_that_crashes_is_started_again(world: World, make_dapr_pod: MakePod, stream: str) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account)
    await pod.until_ready()
    child = _daprd(pod)
    assert child  # signalling 0 would reach our own process group
    os.kill(child, signal.SIGKILL)
    await eventually(lambda: _daprd(pod) not in (0, child), "another process", 10)
    await pod.until_ready()
    await _until_published(pod, f"{stream}.a")
    assert "edgefarm_sidecar_daprd_restarts_total 1" in pod.get("/metrics").body


async def test_daprd_ends_with_the_sidecar_and_a_restart_finds_its_ports_free(
    world: World, make_dapr_pod: MakePod, stream: str
) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>", *JETSTREAM))
    pod = make_dapr_pod(account)
    await pod.until_ready()
    child = _daprd(pod)
    pod.running.signal(signal.SIGKILL)
    pod.running.wait(5)
    pod.start()
    await pod.until_ready()
    await _until_published(pod, f"{stream}.a")
    assert not _alive(child)
    child = _daprd(pod)
    assert await asyncio.to_thread(pod.stop) == 0
    assert not _alive(child)


async def test_secrets_reach_daprd_by_file_only(world: World, make_dapr_pod: MakePod, stream: str) -> None:
    account = world.service_account()
    await world.grant(account, (f"{stream}.>",))
    pod = make_dapr_pod(account, EDGEFARM_DAPR_LOG_LEVEL="debug")
    await pod.until_ready()
    token, seed = pod.credentials()
    proc = Path("/proc") / str(_daprd(pod))
    seen = pod.log() + (proc / "cmdline").read_text() + (proc / "environ").read_text()
    assert seed not in seen
    assert token not in seen
    component = Path(pod.environment["EDGEFARM_COMPONENTS_DIR"]) / "resources" / "network.yaml"
    assert component.stat().st_mode & 0o777 == 0o400
    assert seed in component.read_text()


async def test_a_missing_daprd_is_said_in_one_line(world: World, make_dapr_pod: MakePod) -> None:
    account = world.service_account()
    await world.grant(account, ("a.>",))
    pod = make_dapr_pod(account, EDGEFARM_DAPRD="/no/daprd")
    await pod.until_not_ready("waiting for daprd")
    await eventually(lambda: "EDGEFARM_DAPRD names the program" in pod.log(), "said")
    assert pod.stop() == 0


def _port(pod: SidecarPod) -> int:
    return int(pod.environment["EDGEFARM_DAPR_HTTP_PORT"])


def _daprd(pod: SidecarPod) -> int:
    """Process id of the sidecar's only child, 0 without one."""
    with suppress(FileNotFoundError):
        children = Path(f"/proc/{pod.running.pid}/task/{pod.running.pid}/children").read_text().split()
        return int(children[0]) if children else 0
    return 0


def _alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def _publish(pod: SidecarPod, topic: str, data: Any) -> tuple[int, str]:
    status, body = await asyncio.to_thread(publish, _port(pod), topic, data)
    return status, body.get("errorCode", "")


async def _until_published(pod: SidecarPod, topic: str, within: float = 20) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while (answer := await _publish(pod, topic, {})) != (204, ""):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not published: {answer}\n{pod.running.tail(40)}")
        await asyncio.sleep(0.2)


async def _until_subscribed(world: World, stream: str) -> None:
    async with await world.administrator() as administrator:
        manager = administrator.client.jetstream()
        deadline = asyncio.get_running_loop().time() + 20
        while not await manager.consumers_info(stream):
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError("no consumer on the stream")
            await asyncio.sleep(0.05)


def _until_disconnected(pod: SidecarPod, world: World) -> None:
    deadline = time.monotonic() + 10
    while established(_daprd(pod), [world.hub.url]):
        assert time.monotonic() < deadline, "daprd is still connected"
        time.sleep(0.05)


@asynccontextmanager
async def _received(world: World, subject: str) -> AsyncIterator[list[bytes]]:
    messages: list[bytes] = []

    async def keep(message: Any) -> None:
        messages.append(message.data)

    async with await world.administrator() as administrator:
        await administrator.client.subscribe(subject, cb=keep)
        await administrator.client.flush()
        yield messages
