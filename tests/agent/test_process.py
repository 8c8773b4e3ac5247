"""The agent as a program of its own: health, what its log and its command see, and its end."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

from edgefarm import names
from edgefarm.agentbus import Status
from tests.agent.world import AgentProcess, Controller, World
from tests.natskit import eventually

CONFIG = """\
network:
  enabled: true
  abbotExec: [/bin/sh, -c, {script}]
"""


async def test_a_process_serves_health_answers_and_ends_in_time(
    world: World, controller: Controller, work: Path
) -> None:
    host = world.host(work / "host")
    script = f"'read -r x || [ ${{#x}} != 8 ] || exec sleep 60; env > {work}/env; touch {work}/runs; echo YWJj'"
    agent = AgentProcess.start(world, host, CONFIG.format(script=script))
    try:
        await eventually(lambda: agent.get("/readyz") == (200, "ready: registered as edge-1\n"), "ready", 30)
        assert agent.get("/healthz") == (200, "ok\n")
        assert agent.get("/nothing")[0] == 404
        secret = b"a private key of the device"
        # Eight characters of base64 make the command sleep.
        slow = asyncio.create_task(controller.request(b"sleep!"))
        answer = await controller.request(secret)
        assert (answer.status, answer.data) == (Status.DONE, b"abc")
        assert 'edgefarm_agent_requests_total{status="done"} 1.0' in agent.get("/metrics")[1]
        assert not any(word in (work / "env").read_text() for word in ("EDGEFARM", "KUBERNETES", "VAULT"))
        status = await asyncio.to_thread(agent.process.stop, 10)
        assert status == 0
        assert (await slow).status is Status.BUSY
    finally:
        agent.process.stop()
    log = (host.folder / "agent.log").read_text()
    for word in (secret.decode(), base64.b64encode(secret).decode(), "proof-1", (host.folder / "token").read_text()):
        assert word not in log
    events = [line["event"] for line in agent.log()]
    assert events[:4] == ["started", "logged in to Vault", "connected to NATS", "registered"]
    assert events.count("request answered") >= 1


async def test_a_process_that_cannot_register_is_healthy_but_not_ready(world: World, work: Path) -> None:
    world.vault.delete_role(names.agent_role("network-agent"))
    agent = AgentProcess.start(world, world.host(work / "host"), "network: {enabled: false}")
    try:
        await eventually(lambda: "refused to log in" in agent.get("/readyz")[1], "a reason", 30)
        assert agent.get("/readyz")[0] == 503
        assert agent.get("/healthz")[0] == 200
        assert await asyncio.to_thread(agent.process.stop, 10) == 0
    finally:
        agent.process.stop()


async def test_a_health_port_in_use_is_named(world: World, work: Path) -> None:
    host = world.host(work / "host")
    first = AgentProcess.start(world, host, "")
    try:
        await eventually(lambda: first.get("/healthz")[0] == 200, "healthy", 30)
        second = AgentProcess.start(world, host, "", EDGEFARM_HEALTH_PORT=str(first.health_port))
        assert await asyncio.to_thread(second.process.wait, 30) == 2
        assert f"agent: EDGEFARM_HEALTH_PORT: cannot listen on 127.0.0.1:{first.health_port}" in second.process.tail()
    finally:
        first.process.stop()
