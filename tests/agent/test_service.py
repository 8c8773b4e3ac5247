"""The agent against real OpenBao and nats-server: registration, requests, and what it does when one of them is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from agent.executor import NetworkSettings
from edgefarm.agentbus import Denied, Network, Status
from edgefarm.agentparts import PART_BYTES, Request
from tests.agent.world import Controller, EdgeHost, World
from tests.natskit import eventually

MakeHost = Callable[..., EdgeHost]


def shell(script: str, **settings: object) -> NetworkSettings:
    """A network whose command is a shell script."""
    return NetworkSettings(enabled=True, arguments=("/bin/sh", "-c", script), **settings)  # type: ignore[arg-type]


async def test_an_agent_registers_and_stays_registered(make_host: MakeHost, controller: Controller) -> None:
    host = make_host()
    await host.until("registered as edge-1", ready=True)
    nkey, registration = controller.registrations[0]
    assert (registration.token, registration.hostname, registration.program) == (
        "proof-1",
        "edge-1.example",
        "agent test",
    )
    assert (registration.network, registration.containers, registration.new) == (True, False, True)
    await eventually(lambda: controller.heartbeats.count(nkey) >= 2, "heartbeats")
    assert len(controller.registrations) == 1


async def test_the_words_of_a_command_that_fails_reach_the_reconciler(
    make_host: MakeHost, controller: Controller
) -> None:
    host = make_host(shell("echo 'no such interface: wlan7' >&2; exit 5"))
    await host.until("registered", ready=True)
    answer = await controller.request(b"q")
    assert (answer.status, answer.exit_status, answer.text) == (Status.FAILED, 5, "no such interface: wlan7")


async def test_large_requests_and_answers_travel_in_parts(make_host: MakeHost, controller: Controller) -> None:
    host = make_host()
    await host.until("registered", ready=True)
    data = os.urandom(3 * PART_BYTES + 17)
    answer = await controller.request(data)
    assert (answer.status, answer.data) == (Status.DONE, data)


async def test_twenty_requests_at_once_are_all_answered(make_host: MakeHost, controller: Controller) -> None:
    host = make_host(shell("sleep 0.05; cat", concurrency=2))
    await host.until("registered", ready=True)
    requests = [os.urandom(100) for _ in range(20)]
    answers = await asyncio.gather(*(controller.request(request) for request in requests))
    assert [answer.data for answer in answers] == requests


async def test_container_requests_are_not_supported_without_containers(
    make_host: MakeHost, controller: Controller
) -> None:
    host = make_host()
    await host.until("registered", ready=True)
    answer = await controller.request(b"q", network=Network.CONTAINER)
    assert (answer.status, answer.text) == (Status.UNSUPPORTED, "this host runs no containers (containers)")


async def test_a_host_without_network_registers_and_says_so(make_host: MakeHost, controller: Controller) -> None:
    host = make_host(NetworkSettings())
    await host.until("registered", ready=True)
    assert controller.registrations[0][1].network is False
    assert (await controller.request(b"q")).status is Status.UNSUPPORTED


async def test_a_request_that_comes_twice_runs_once(make_host: MakeHost, controller: Controller, work: Path) -> None:
    host = make_host(shell(f"echo x >> {work}/runs; while [ ! -e {work}/go ]; do sleep 0.02; done; cat"))
    await host.until("registered", ready=True)
    first = asyncio.create_task(controller.request(b"q", identifier="same"))
    await eventually((work / "runs").exists, "the command runs")
    await controller.send(Request("same", 30, Network.HOST, b"q"))
    await controller.connection.settle()
    await eventually(lambda: any("under way" in line["event"] for line in host.lines), "the second one was seen")
    (work / "go").touch()
    assert (await first).status is Status.DONE
    assert (work / "runs").read_text() == "x\n"


async def test_an_unknown_agent_registers_again_with_the_token_of_now(
    make_host: MakeHost, controller: Controller
) -> None:
    host = make_host()
    await host.until("registered", ready=True)
    await eventually(lambda: not host.presence.new, "a heartbeat was answered")
    (host.folder / "agent-token").write_text("proof-2\n")
    controller.known.clear()
    await controller.registered(2)
    nkey, registration = controller.registrations[1]
    assert nkey == controller.registrations[0][0]
    assert (registration.token, registration.new) == ("proof-2", False)


async def test_an_agent_is_new_until_a_heartbeat_was_answered_too(make_host: MakeHost, controller: Controller) -> None:
    """Who has answered the registration may have died before it made the device."""
    controller.forgetful = True
    host = make_host()
    await controller.registered(2)
    assert [registration.new for _, registration in controller.registrations[:2]] == [True, True]
    controller.forgetful = False
    await eventually(lambda: not host.presence.new, "a heartbeat was answered")


async def test_a_refused_registration_says_why_and_is_tried_again(make_host: MakeHost, controller: Controller) -> None:
    accept = controller.decide
    controller.decide = lambda _: Denied("TokenRefused", "The token is for another audience.")
    host = make_host()
    await host.until("refuses the registration (TokenRefused): The token is for another audience.")
    controller.decide = accept
    await host.until("registered", ready=True)
    assert sum("TokenRefused" in str(line) for line in host.lines) == 1


async def test_without_a_reconciler_the_agent_says_so_and_waits(make_host: MakeHost, world: World) -> None:
    host = make_host()
    await host.until("the reconciler does not answer the registration")
    controller = await Controller.open(world.hub, world.controller_user())
    await host.until("registered", ready=True)
    await eventually(lambda: not host.presence.new, "a heartbeat was answered")
    await controller.close()
    await host.until("the reconciler no longer answers")
    controller = await Controller.open(world.hub, world.controller_user())
    await host.until("registered", ready=True)
    assert controller.registrations[0][1].new is False
    await controller.close()


async def test_a_missing_proof_token_is_named(make_host: MakeHost, controller: Controller) -> None:
    host = make_host(start=False)
    (host.folder / "agent-token").unlink()
    host.start()
    await host.until("agent-token cannot be read: No such file or directory")
    (host.folder / "agent-token").write_text("proof-1")
    await host.until("registered", ready=True)
