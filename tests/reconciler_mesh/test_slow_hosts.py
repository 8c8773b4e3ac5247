"""Hosts that hang or fail: they keep nobody else waiting, are asked seldom, and nothing stale is told of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from edgefarm import names
from tests.reconciler_mesh.hosts import Host
from tests.reconciler_mesh.world import MeshWorld

MINUTE = 60


async def join_all(world: MeshWorld, count: int) -> tuple[Host, list[Host]]:
    """A gateway and so many edge hosts."""
    gateway = await world.join("cluster-1", names.ROLE_GATEWAY)
    await world.settle()
    edges = [await world.join(f"edge-{number}") for number in range(count)]
    await world.settle(2 * MINUTE)
    return gateway, edges


async def test_hosts_that_hang_do_not_keep_another_one_from_joining(world: MeshWorld) -> None:
    _, edges = await join_all(world, 40)
    patience = asyncio.Event()
    for edge in edges:
        edge.patience = patience
    async with asyncio.timeout(20):
        while sum(edge.busy for edge in edges) < len(edges):
            await world.tick()
        late = await world.join("edge-late")
        while await world.find(late) is None or (await world.condition(late))[0] != "True":
            await world.tick()
    assert all(edge.busy for edge in edges)
    patience.set()
    await world.settle()


@pytest.mark.parametrize("how", ["failure", "silent"])
async def test_a_host_that_cannot_answer_is_asked_no_more_often_than_others(world: MeshWorld, how: str) -> None:
    _, (edge,) = await join_all(world, 1)
    setattr(edge, how, "abbot: the daemon does not run")
    world.hosts.forget_requests()
    await world.settle(10 * MINUTE)
    every = world.configuration.mesh.observe_every.total_seconds()
    others = 10 * MINUTE / every
    assert world.hosts.requests <= 2 * others + 4


async def test_a_tunnel_is_not_said_to_live_by_a_host_that_does_not_tell_any_more(world: MeshWorld) -> None:
    gateway, (edge,) = await join_all(world, 1)
    gateway.failure = "abbot: the daemon does not run"
    await world.settle(MINUTE)
    assert (await world.condition(gateway, "Configured"))[:2] == ("False", "HostRefused")
    assert (await world.condition(gateway, "Connected"))[0] == "False"
    gateway.failure = ""
    await world.settle(MINUTE)
    assert (await world.condition(gateway))[0] == "True"
    assert (await world.condition(edge))[0] == "True"


async def test_with_rare_looks_a_host_that_has_joined_is_soon_left_alone(world: MeshWorld) -> None:
    world.configure(observe_every=timedelta(hours=1))
    await join_all(world, 3)
    world.hosts.forget_requests()
    await world.settle(30 * MINUTE)
    assert world.hosts.requests == 0
