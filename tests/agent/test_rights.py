"""What an agent may do at a real nats-server: speak and listen below its own nkey, and nothing else."""

from __future__ import annotations

import pytest
from nats.aio.msg import Msg

from edgefarm import agentbus
from edgefarm.nats import nkeys
from tests.agent.world import Controller, World
from tests.natskit import Connection

#: Always the same, because it is part of the names of tests.
OTHER = nkeys.encode_public(nkeys.Prefix.USER, bytes(32))


async def refused(world: World, subject: str, *, subscribe: bool) -> list[str]:
    """What the server says to an agent that uses this subject."""
    _, credentials = world.agent_user()
    async with await Connection.open(world.hub.url, world.authority, credentials) as agent:
        if subscribe:
            await agent.client.subscribe(subject)
        else:
            await agent.client.publish(subject, b"{}")
        await agent.settle()
        return agent.errors


@pytest.mark.parametrize(
    "subject",
    [
        agentbus.register_subject(OTHER),
        agentbus.heartbeat_subject(OTHER),
        agentbus.answer_subject(OTHER, "1"),
        agentbus.request_subject(OTHER),
        agentbus.reply_subject(OTHER, "1"),
        "agent.up.register",
        "_INBOX.somebody",
        "$JS.API.INFO",
        "$SYS.REQ.SERVER.PING",
        "anything",
    ],
)
async def test_an_agent_cannot_publish_for_another(world: World, subject: str) -> None:
    errors = await refused(world, subject, subscribe=False)
    assert "permissions violation for publish" in errors[0].lower()


@pytest.mark.parametrize(
    "subject",
    [
        agentbus.to_agent(OTHER),
        agentbus.request_subject(OTHER),
        "agent.*.down.>",
        "agent.*.down.request",
        agentbus.FROM_ALL_AGENTS,
        "agent.>",
        "_INBOX.>",
        ">",
    ],
)
async def test_an_agent_cannot_listen_to_others(world: World, subject: str) -> None:
    errors = await refused(world, subject, subscribe=True)
    assert "permissions violation for subscription" in errors[0].lower()


async def test_an_agent_cannot_speak_to_itself_as_the_reconciler(world: World) -> None:
    nkey, credentials = world.agent_user()
    async with await Connection.open(world.hub.url, world.authority, credentials) as agent:
        await agent.client.publish(agentbus.request_subject(nkey), b"")
        await agent.client.subscribe(f"agent.{nkey}.up.>")
        await agent.settle()
        assert len(agent.errors) == 2


async def test_an_agent_may_use_all_of_its_own_subjects(world: World, controller: Controller) -> None:
    nkey, credentials = world.agent_user()
    async with await Connection.open(world.hub.url, world.authority, credentials) as agent:
        heard: list[str] = []

        async def hear(message: Msg) -> None:
            heard.append(message.subject)

        await agent.client.subscribe(agentbus.to_agent(nkey), cb=hear)
        await agent.client.publish(agentbus.heartbeat_subject(nkey), b"{}", reply=agentbus.reply_subject(nkey, "1"))
        await agent.settle()
        await controller.connection.settle()
        await agent.settle()
        assert agent.errors == []
        assert controller.heartbeats == [nkey]
        assert heard == [agentbus.reply_subject(nkey, "1")]


async def test_the_reconciler_cannot_speak_in_the_place_of_an_agent(world: World) -> None:
    async with await Connection.open(world.hub.url, world.authority, world.controller_user()) as reconciler:
        await reconciler.client.publish(agentbus.heartbeat_subject(OTHER), b"{}")
        await reconciler.client.subscribe("agent.*.down.>")
        await reconciler.settle()
        assert len(reconciler.errors) == 2
