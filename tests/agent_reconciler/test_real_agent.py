"""The real agent and the reconciler's real part for agents, with real Vault, NATS and tokens between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agent.executor import NetworkSettings
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported
from edgefarm.vault import Vault
from tests.agent.world import EdgeHost
from tests.natskit import eventually
from tests.reconciler_agents.kit import NAMESPACE, Cluster, Office

MakeHost = Callable[..., Awaitable[EdgeHost]]

#: A command that fails for one request, which is the base64 of `no`.
COMMAND = NetworkSettings(
    enabled=True,
    arguments=("/bin/sh", "-c", 'x=$(cat); [ "$x" != bm8= ] || { echo "impossible route" >&2; exit 4; }; echo "$x"'),
)


@pytest.fixture
async def make_host(listening: Office, cluster: Cluster, work: Path) -> AsyncIterator[MakeHost]:
    """Makes hosts whose pod and tokens are real, and starts their agents."""
    hosts: list[EdgeHost] = []

    async def make(node: str, network: NetworkSettings = COMMAND, *, token: str = "") -> EdgeHost:
        folder = work / f"{node}-{len(hosts)}"
        folder.mkdir()
        (folder / "token").write_text(listening.world.reviewer.token(NAMESPACE, "network-agent"))
        (folder / "agent-token").write_text(token or cluster.token(await cluster.pod(node)))
        world = listening.world
        hosts.append(EdgeHost(folder, world.authority, Vault(world.admin.settings), network))
        return hosts[-1].start()

    yield make
    await asyncio.gather(*(host.stop() for host in hosts))


async def test_an_agent_speaks_for_the_node_that_its_token_proves(
    listening: Office, cluster: Cluster, make_host: MakeHost
) -> None:
    device = cluster.node_name("edge")
    host = await make_host("edge")
    await host.until(f"registered as {device}", ready=True)
    connected = listening.service.connected.get(device)
    assert connected is not None
    assert (connected.network, connected.containers, connected.hostname) == (True, False, "edge-1.example")


async def test_requests_go_there_and_back_and_failures_keep_their_words(
    listening: Office, cluster: Cluster, make_host: MakeHost
) -> None:
    device = cluster.node_name("edge")
    host = await make_host("edge")
    await host.until("registered", ready=True)
    agents = listening.service.connected
    data = os.urandom(2 * 1024 * 1024)
    assert await agents.request(device, data, timeout=20) == data
    with pytest.raises(AgentRefused, match="impossible route") as raised:
        await agents.request(device, b"no", timeout=20)
    assert raised.value.status == 4
    with pytest.raises(AgentUnsupported, match="runs no containers"):
        await agents.request(device, b"q", timeout=20, container=True)


async def test_a_command_that_takes_too_long_is_told_apart_from_an_agent_that_is_away(
    listening: Office, cluster: Cluster, make_host: MakeHost
) -> None:
    device = cluster.node_name("edge")
    host = await make_host("edge", NetworkSettings(enabled=True, arguments=("sleep", "60")))
    await host.until("registered", ready=True)
    with pytest.raises((AgentRefused, AgentUnavailable), match="was ended after"):
        await listening.service.connected.request(device, b"q", timeout=1)


async def test_a_token_that_proves_no_node_keeps_the_agent_out_and_it_says_why(
    cluster: Cluster, make_host: MakeHost
) -> None:
    host = await make_host("edge", token=cluster.token(None))
    await host.until("the reconciler refuses the registration (")
    assert not host.presence.ready
    (host.folder / "agent-token").write_text(cluster.token(await cluster.pod("edge")))
    await host.until("registered", ready=True)


async def test_twenty_requests_at_once_are_answered(listening: Office, cluster: Cluster, make_host: MakeHost) -> None:
    device = cluster.node_name("edge")
    host = await make_host("edge")
    await host.until("registered", ready=True)
    requests = [os.urandom(1000) for _ in range(20)]
    agents = listening.service.connected
    assert await asyncio.gather(*(agents.request(device, each, timeout=30) for each in requests)) == requests


async def test_an_agent_that_ends_is_seen_to_be_gone(listening: Office, cluster: Cluster, make_host: MakeHost) -> None:
    device = cluster.node_name("edge")
    host = await make_host("edge")
    await host.until("registered", ready=True)
    await host.stop()
    await eventually(lambda: listening.service.connected.get(device) is None, "the agent is gone", 20)
