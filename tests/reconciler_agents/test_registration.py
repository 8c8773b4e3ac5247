"""Agents prove their nodes with real, pod-bound tokens, and nobody else gets in."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from nats.aio.msg import Msg

from edgefarm import agentbus, names
from edgefarm.agentbus import Status
from edgefarm.agentparts import Answer, Request
from edgefarm.errors import AgentUnavailable
from reconciler import agent_admission
from reconciler.adapters.agents import AgentBus, BusLimits, BusTarget
from reconciler.agent_admission import AgentAdmission, Clocks
from reconciler.agents import AgentRegistry
from tests.natskit import eventually
from tests.reconciler_agents.kit import Cluster, Office, accepted, denied


async def test_an_agent_registers_as_the_node_of_its_pod(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge"))
    async with listening.agent(token) as agent:
        device = accepted(await agent.register(containers=True))
        known = listening.service.connected.get(device)
        assert device == cluster.node_name("edge")
        assert known is not None
        assert (known.role, known.node, known.session) == ("edge", device, agent.nkey)
        assert (known.network, known.containers, known.new, known.hostname) == (True, True, True, "host")
        assert device in listening.told


async def test_a_gateway_is_another_device_than_the_edge_agent_of_its_node(listening: Office, cluster: Cluster) -> None:
    edge, gateway = await cluster.pod("both"), await cluster.pod("both", account="network-gateway")
    async with listening.agent(cluster.token(edge)) as one, listening.agent(cluster.token(gateway)) as other:
        node = accepted(await one.register())
        assert accepted(await other.register()) == f"gateway.{node}"
        assert [agent.device for agent in listening.service.connected.all()] == sorted([node, f"gateway.{node}"])


async def test_a_token_of_another_service_account_is_refused(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge", account="somebody"))
    async with listening.agent(token) as agent:
        assert denied(await agent.register()) == "NotAnAgent"


async def test_a_token_of_an_equal_account_in_another_namespace_is_refused(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge", namespace="default"))
    async with listening.agent(token) as agent:
        assert denied(await agent.register()) == "NotAnAgent"


async def test_a_token_that_is_meant_for_vault_is_refused(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge"), audience=names.DEFAULT_AUDIENCE)
    async with listening.agent(token) as agent:
        assert denied(await agent.register()) == "TokenRefused"


async def test_a_token_that_is_bound_to_no_pod_is_refused(listening: Office, cluster: Cluster) -> None:
    await cluster.pod("edge")  # makes the service account
    async with listening.agent(cluster.token(None)) as agent:
        assert denied(await agent.register()) == "NotAPod"


async def test_the_token_of_a_pod_that_is_gone_is_refused(listening: Office, cluster: Cluster) -> None:
    pod = await cluster.pod("edge")
    token = cluster.token(pod)
    await cluster.remove(pod)
    async with listening.agent(token) as agent:
        assert denied(await agent.register()) == "TokenRefused"


@pytest.mark.parametrize("token", ["garbage", "a.b.c", "x" * 20_000])
async def test_garbage_is_refused_and_never_repeated(listening: Office, token: str) -> None:
    async with listening.agent() as agent:
        reply = await agent.register(token=token)
        assert denied(reply) == "TokenRefused"
        assert token not in str(reply)


async def test_what_is_no_registration_is_refused(listening: Office) -> None:
    async with listening.agent() as agent:
        for data in (b"", b"[]", b'{"version": 2}', b"x" * 70_000):
            assert denied(await agent.say(agentbus.register_subject(agent.nkey), data)) == "InvalidRegistration"


async def test_who_is_not_registered_is_told_to_register(listening: Office) -> None:
    async with listening.agent() as agent:
        assert denied(await agent.heartbeat()) == agentbus.REASON_UNKNOWN


async def test_replies_go_nowhere_but_to_the_agent_itself(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge"))) as victim, listening.agent() as attacker:
        accepted(await victim.register())
        for reply in (agentbus.request_subject(victim.nkey), agentbus.reply_subject(victim.nkey, "1"), "elsewhere"):
            subject = agentbus.heartbeat_subject(attacker.nkey)
            await attacker.connection.client.publish(subject, b"{}", reply=reply)
        await attacker.heartbeat()  # comes after the others
        await victim.heartbeat()
        assert victim.requests == []
        assert victim.connection.errors == []


async def test_an_agent_cannot_register_with_the_nkey_of_another(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge"))
    async with listening.agent(token) as victim, listening.agent() as attacker:
        await attacker.connection.client.publish(agentbus.register_subject(victim.nkey), b"{}")
        await attacker.connection.settle()
        assert any("permissions violation" in error.lower() for error in attacker.connection.errors)


async def test_a_stolen_agent_hears_nothing_that_others_say_or_are_asked(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge"))
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    async def done(_: Request) -> Answer:
        return Answer(Status.DONE, b"done")

    async with listening.agent(token, done) as victim, listening.agent() as thief:
        theirs = [agentbus.to_agent(victim.nkey), agentbus.request_subject(victim.nkey), f"agent.{victim.nkey}.>"]
        wide = [">", "agent.>", "agent.*.down.>", "agent.*.down.request", "*.*.down.*", agentbus.FROM_ALL_AGENTS]
        for subject in (*theirs, *wide, f"agent.{thief.nkey}.up.>", "_INBOX.>", "$SYS.>"):
            for queue in ("", "shared"):
                await thief.connection.client.subscribe(subject, queue=queue, cb=hear)
        await thief.connection.settle()
        device = accepted(await victim.register())
        assert await listening.service.connected.request(device, b"question") == b"done"
        await thief.connection.client.publish(agentbus.request_subject(victim.nkey), b"forged")
        await thief.connection.settle()
        assert (heard, len(victim.requests)) == ([], 1)


async def test_only_the_agent_that_was_asked_can_answer(listening: Office, cluster: Cluster) -> None:
    async with (
        listening.agent(cluster.token(await cluster.pod("one"))) as victim,
        listening.agent(cluster.token(await cluster.pod("two"))) as attacker,
    ):
        device = accepted(await victim.register())
        accepted(await attacker.register())
        asking = asyncio.create_task(listening.service.connected.request(device, b"question", timeout=20))
        await eventually(lambda: bool(victim.requests), "the request has arrived")
        identifier = victim.requests[0].id
        await attacker.answer(identifier, Answer(Status.DONE, b"forged"))
        await attacker.connection.client.publish(
            agentbus.answer_subject(victim.nkey, identifier), b"forged", headers={"Edgefarm-Status": "done"}
        )
        await attacker.heartbeat()  # comes after both
        assert not asking.done()
        await victim.answer(identifier, Answer(Status.DONE, b"right"))
        assert await asking == b"right"


async def test_a_pod_that_logs_in_again_replaces_its_own_session(listening: Office, cluster: Cluster) -> None:
    token = cluster.token(await cluster.pod("edge"))
    async with listening.agent(token) as before, listening.agent(token) as after:
        device = accepted(await before.register())
        assert accepted(await after.register(new=False)) == device
        known = listening.service.connected.get(device)
        assert known is not None
        assert (known.session, known.new) == (after.nkey, False)
        assert denied(await before.heartbeat()) == agentbus.REASON_UNKNOWN


async def test_the_younger_pod_of_a_node_speaks_for_it_whoever_registers_last(
    listening: Office, cluster: Cluster
) -> None:
    older = await cluster.pod("edge")
    younger = await cluster.pod("edge")
    while younger["metadata"]["creationTimestamp"] == older["metadata"]["creationTimestamp"]:
        await cluster.remove(younger)
        younger = await cluster.pod("edge")
    async with listening.agent(cluster.token(older)) as old, listening.agent(cluster.token(younger)) as new:
        device = accepted(await old.register())
        assert accepted(await new.register()) == device
        assert denied(await old.register()) == "Superseded"
        known = listening.service.connected.get(device)
        assert known is not None
        assert known.session == new.nkey
        await cluster.remove(younger)
        assert accepted(await old.register()) == device


async def test_a_pod_that_is_ending_gives_way_to_one_of_the_same_age(listening: Office, cluster: Cluster) -> None:
    ending, staying = await cluster.pod("edge"), await cluster.pod("edge")
    await cluster.end(ending)
    async with listening.agent(cluster.token(staying)) as new, listening.agent(cluster.token(ending)) as old:
        accepted(await new.register())
        assert denied(await old.register()) == "Superseded"


async def test_an_agent_is_known_again_within_a_heartbeat_after_a_restart(office: Office, cluster: Cluster) -> None:
    async with office.agent(cluster.token(await cluster.pod("edge"))) as agent:
        for new in (True, False):  # a process, and the one that follows it
            office.service = office.new_service()
            running = asyncio.create_task(office.service.run())
            await office.heard()
            assert denied(await agent.heartbeat()) == agentbus.REASON_UNKNOWN
            device = accepted(await agent.register(new=new))
            assert accepted(await agent.heartbeat()) == device
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class SlowDesk:
    """Lets nobody in before it is opened, and counts who is looked at."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.looked_at: list[str] = []

    async def register(self, session: str, _data: bytes) -> agentbus.Reply:
        self.looked_at.append(session)
        await self.open.wait()
        return agentbus.Accepted("device", 1)

    def heartbeat(self, _session: str) -> agentbus.Reply:
        return agentbus.Accepted("device", 1)

    def lost(self, _session: str) -> None:
        """Nothing to do."""


async def test_registrations_are_looked_at_a_few_at_a_time_once_per_session_and_not_without_end(
    office: Office,
) -> None:
    desk = SlowDesk()
    target = BusTarget(office.configuration.nats.urls, office.configuration.nats.ca_bundle)
    limits = BusLimits(reviews=1, waiting=1)
    bus = AgentBus(lambda: target, office.user, desk, log=structlog.get_logger(), limits=limits)
    running = asyncio.create_task(bus.run())
    await eventually(lambda: bus.connected, "connected", 10)
    async with office.agent() as first, office.agent() as second, office.agent() as third:
        waiting = []
        for agent in (first, second):
            waiting.append(asyncio.create_task(agent.register(token="t")))
            await agent.connection.settle()
            await agent.heartbeat()  # comes after the registration
        waiting[0].cancel()  # loses patience, and asks again
        again = asyncio.create_task(first.register(token="t"))
        assert denied(await third.register(token="t")) == "Busy"
        assert desk.looked_at == [first.nkey]
        desk.open.set()
        assert [accepted(reply) for reply in await asyncio.gather(again, waiting[1])] == ["device", "device"]
        assert accepted(await third.register(token="t")) == "device"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_registration_that_is_too_long_is_not_kept_until_its_turn_comes(office: Office) -> None:
    desk = SlowDesk()
    target = BusTarget(office.configuration.nats.urls, office.configuration.nats.ca_bundle)
    bus = AgentBus(lambda: target, office.user, desk, log=structlog.get_logger())
    running = asyncio.create_task(bus.run())
    await eventually(lambda: bus.connected, "connected", 10)
    async with office.agent() as agent:
        assert denied(await agent.register(token="t" * agentbus.MAX_REGISTRATION)) == "InvalidRegistration"
    assert desk.looked_at == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_refusals_fill_no_log(office: Office) -> None:
    lines: list[MutableMapping[str, Any]] = []

    def keep(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        lines.append(event)
        raise structlog.DropEvent

    seconds = [0.0]
    clocks = Clocks(lambda: datetime.now(UTC), lambda: seconds[0])
    log = structlog.wrap_logger(None, processors=[keep])
    desk = AgentAdmission(AgentRegistry(45), agent_admission.Cluster(office.kube, office.kube, "n"), clocks, 15, log)
    refused = agentbus.Registration("t" * 20_000, "edge", "agent 1", network=True, containers=False, new=True)
    for _ in range(100):
        assert denied(await desk.register("U", refused.encode())) == "TokenRefused"
    seconds[0] = 2.0
    await desk.register("U", refused.encode())
    assert [line["others_before"] for line in lines] == [0, 99]


async def test_a_silent_agent_is_reported_and_forgotten(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge"))) as agent:
        device = accepted(await agent.register())
        listening.told.clear()
        await eventually(lambda: device in listening.told, "the silence was noticed", 10)
        assert listening.service.connected.get(device) is None
        assert denied(await agent.heartbeat()) == agentbus.REASON_UNKNOWN


async def test_a_mesh_that_is_switched_off_knows_no_agents(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge"))) as agent:
        device = accepted(await agent.register())
        await listening.switch_off()
        await asyncio.wait_for(agent.connection.closed.wait(), 10)
        assert listening.service.connected.all() == []
        with pytest.raises(AgentUnavailable, match="not connected"):
            await listening.service.connected.request(device, b"")
