"""Requests to agents: in parts, in parallel, and with an end whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import replace

import pytest

from edgefarm import agentbus
from edgefarm.agentbus import Status
from edgefarm.agentparts import Answer, Request
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported, InvalidMessage
from reconciler.adapters.agents import BusPace
from reconciler.agent_service import AgentPace
from tests.natskit import eventually
from tests.reconciler_agents.kit import Agent, Cluster, Handler, Office, accepted


async def echo(request: Request) -> Answer:
    """Give back what was asked."""
    return Answer(Status.DONE, request.data)


def always(status: Status, text: str = "", exit_status: int | None = None) -> Handler:
    """A host whose answer is always this."""

    async def answer(_: Request) -> Answer:
        return Answer(status, text.encode(), exit_status)

    return answer


async def silence(_: Request) -> None:
    """A host that never answers."""


def counted(office: Office) -> Mapping[str, float]:
    """Requests to agents by result."""
    (family,) = (each for each in office.metrics.registry.collect() if each.name == "edgefarm_agent_requests")
    return {each.labels["result"]: each.value for each in family.samples if each.name.endswith("_total")}


async def test_megabytes_go_there_and_back_in_parts(listening: Office, cluster: Cluster) -> None:
    data = secrets.token_bytes(3 * 1024 * 1024)
    async with listening.agent(cluster.token(await cluster.pod("edge")), echo) as agent:
        device = accepted(await agent.register())
        assert await listening.service.connected.request(device, data, timeout=20, container=True) == data
        (request,) = agent.requests
        assert (request.timeout, request.network) == (20, agentbus.Network.CONTAINER)
        assert counted(listening) == {"done": 1}


async def test_many_requests_run_side_by_side(listening: Office, cluster: Cluster) -> None:
    together = asyncio.Event()

    async def wait_for_all(request: Request) -> None:
        async def later() -> None:
            await together.wait()
            await agent.answer(request.id, Answer(Status.DONE, request.data))

        tasks.append(asyncio.create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    async with listening.agent(cluster.token(await cluster.pod("edge")), wait_for_all) as agent:
        device = accepted(await agent.register())
        wanted = [f"request {number}".encode() for number in range(50)]
        asked = [asyncio.create_task(listening.service.connected.request(device, data)) for data in wanted]
        await eventually(lambda: len(tasks) == len(wanted), "all have arrived", 10)
        together.set()
        assert await asyncio.gather(*asked) == wanted


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.FAILED, AgentRefused),
        (Status.TOO_LARGE, AgentRefused),
        (Status.UNSUPPORTED, AgentUnsupported),
        (Status.TIMEOUT, AgentUnavailable),
        (Status.BUSY, AgentUnavailable),
    ],
)
async def test_what_the_host_says_reaches_the_caller(
    listening: Office, cluster: Cluster, status: Status, error: type[Exception]
) -> None:
    handler = always(status, "eth0:\n belongs to somebody else", 3)
    async with listening.agent(cluster.token(await cluster.pod("edge")), handler) as agent:
        device = accepted(await agent.register())
        with pytest.raises(error, match="eth0: belongs to somebody else") as raised:
            await listening.service.connected.request(device, b"")
        assert type(raised.value) is error
        assert isinstance(raised.value, AgentUnavailable) or getattr(raised.value, "status", None) == 3
        assert counted(listening) == {status.value: 1}


async def test_an_agent_that_never_answers_is_waited_for_no_longer_than_allowed(
    listening: Office, cluster: Cluster
) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge")), silence) as agent:
        device = accepted(await agent.register())
        with pytest.raises(AgentUnavailable, match=r"did not answer within 0\.1 s"):
            await listening.service.connected.request(device, b"", timeout=0.1)
        assert counted(listening) == {"lost": 1}
        # An answer that comes too late harms nobody.
        await agent.answer(agent.requests[0].id, Answer(Status.DONE, b"late"))
        accepted(await agent.heartbeat())


async def test_an_answer_that_cannot_be_read_ends_the_request(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge")), silence) as agent:
        device = accepted(await agent.register())
        asking = asyncio.create_task(listening.service.connected.request(device, b""))
        await eventually(lambda: bool(agent.requests), "the request has arrived")
        subject = agentbus.answer_subject(agent.nkey, agent.requests[0].id)
        await agent.connection.client.publish(subject, b"?", headers={"Edgefarm-Part": "1/1"})
        with pytest.raises(AgentUnavailable, match="cannot be read"):
            await asking


async def test_an_agent_that_has_gone_is_noticed_at_once_when_it_is_asked(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge"))) as agent:
        device = accepted(await agent.register())
    listening.told.clear()
    with pytest.raises(AgentUnavailable, match="not connected any more"):
        await listening.service.connected.request(device, b"")
    assert listening.told == [device]
    with pytest.raises(AgentUnavailable, match="is not connected"):
        await listening.service.connected.request(device, b"")


async def test_a_request_that_is_too_large_is_refused_before_it_is_sent(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge"))) as agent:
        device = accepted(await agent.register())
        with pytest.raises(InvalidMessage):
            await listening.service.connected.request(device, bytes(65 * 1024 * 1024))


async def test_requests_end_when_the_connection_is_lost_and_it_comes_back(listening: Office, cluster: Cluster) -> None:
    async with listening.agent(cluster.token(await cluster.pod("edge")), silence) as agent:
        device = accepted(await agent.register())
        asking = asyncio.create_task(listening.service.connected.request(device, b"", timeout=60))
        await eventually(lambda: bool(agent.requests), "the request has arrived")
        listening.world.hub.stop()
        with pytest.raises(AgentUnavailable):
            await asyncio.wait_for(asking, 10)
    listening.world.restart_hub()
    await listening.heard()


async def test_a_login_is_replaced_while_requests_are_under_way(office: Office, cluster: Cluster) -> None:
    office.service = office.new_service(AgentPace(heartbeat=5, bus=BusPace(login=0.3, retry=0.1)))
    running = asyncio.create_task(office.service.run())
    await office.heard()
    async with office.agent(cluster.token(await cluster.pod("edge")), echo) as agent:
        device = accepted(await agent.register())
        async with asyncio.timeout(20):
            while office.service.bus.logins < 4:
                data = secrets.token_bytes(16)
                assert await office.service.connected.request(device, data) == data
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_another_hub_is_used_as_soon_as_the_configuration_names_it(listening: Office) -> None:
    before = listening.service.bus.logins
    urls = (listening.world.hub.url, listening.world.hub.url)
    nats = replace(listening.configuration.nats, urls=urls)
    listening.configuration = replace(listening.configuration, nats=nats)
    listening.service.configuration_changed()
    await eventually(lambda: listening.service.bus.logins > before, "another connection", 10)
    await listening.heard()


async def test_many_agents_register_at_the_same_time(listening: Office, cluster: Cluster) -> None:
    tokens = [cluster.token(await cluster.pod(f"edge-{number}")) for number in range(20)]

    async def one(token: str) -> str:
        async with listening.agent(token) as agent:
            return await registered(agent)

    devices = await asyncio.gather(*map(one, tokens))
    assert sorted(devices) == sorted(cluster.node_name(f"edge-{number}") for number in range(20))
    assert listening.metrics.render().count(b"edgefarm_agents 20.0") == 1


async def registered(agent: Agent) -> str:
    """The agent's device."""
    return accepted(await agent.register())
