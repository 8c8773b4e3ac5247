"""The one poll of the hub for its leafs: what it tells, when, and what becomes of a hub that does not answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog

from edgefarm.errors import NatsUnavailable
from reconciler.leaf_monitor import LeafMonitor, Pace
from reconciler.ports import AccountOnServer, LeafOnHub

_SLOW = Pace(idle=3600, busy=3600, busy_for=0, settle=0)


class Hub:
    """A hub whose leafs are those of a list; `down` says what it answers instead."""

    def __init__(self) -> None:
        self.connected: list[LeafOnHub] = []
        self.down = ""
        self.asked = 0
        self._looked = asyncio.Condition()

    async def leafs(self) -> Sequence[LeafOnHub]:
        async with self._looked:
            self.asked += 1
            self._looked.notify_all()
        if self.down:
            raise NatsUnavailable(self.down)
        return tuple(self.connected)

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(5), self._looked:
            await self._looked.wait_for(lambda: self.asked >= times)

    async def push(self, account_jwt: str) -> None:
        raise NotImplementedError

    async def delete(self, delete_claims_jwt: str) -> None:
        raise NotImplementedError

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        raise NotImplementedError


class World:
    """A hub, the monitor, and what it told."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.wanted = True
        self.told: list[set[str]] = []
        self.monitor = self.watch(_SLOW)

    def watch(self, pace: Pace) -> LeafMonitor:
        monitor = LeafMonitor(lambda: self.hub, lambda: self.wanted, log=structlog.get_logger(), pace=pace)
        monitor.add_handler(lambda leafs: self.told.append({leaf.connection for leaf in leafs}))
        return monitor

    async def look(self, *leafs: LeafOnHub) -> list[set[str]]:
        """What is told when these are connected."""
        self.told.clear()
        self.hub.connected = list(leafs)
        await self.monitor.look()
        return self.told


def leaf(connection: str, rtt: float = 0.01, *, name: str = "n", listening: bool = True) -> LeafOnHub:
    return LeafOnHub("A", name, rtt, connection, listening)


@pytest.fixture
async def world() -> World:
    return World()


@contextlib.asynccontextmanager
async def running(monitor: LeafMonitor) -> AsyncIterator[None]:
    task = asyncio.create_task(monitor.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_first_answer_concerns_everybody_and_the_same_one_again_nobody(world: World) -> None:
    assert not world.monitor.view.asked
    assert await world.look(leaf("1")) == [set()]
    assert world.monitor.view.known
    assert await world.look(leaf("1")) == []


async def test_who_comes_goes_and_comes_again_is_told(world: World) -> None:
    await world.look()
    assert await world.look(leaf("1")) == [{"1"}]
    assert await world.look(leaf("2")) == [{"1", "2"}]
    assert await world.look() == [{"2"}]


async def test_a_leaf_that_begins_to_listen_is_told_once_more(world: World) -> None:
    await world.look(leaf("1", listening=False))
    assert await world.look(leaf("1")) == [{"1"}]


async def test_a_round_trip_is_told_when_it_is_quite_another_one_also_after_many_small_steps(world: World) -> None:
    await world.look(leaf("1", 0.010))
    assert await world.look(leaf("1", 0.015)) == []
    assert await world.look(leaf("1", 0.019)) == []
    assert await world.look(leaf("1", 0.024)) == [{"1"}]


async def test_a_hub_that_does_not_answer_is_told_once_and_so_is_its_return(world: World) -> None:
    await world.look(leaf("1"))
    world.hub.down = "No answer."
    assert await world.look() == [set()]
    assert await world.look() == []
    view = world.monitor.view
    assert (view.known, view.problem, [each.connection for each in view.leafs]) == (False, "No answer.", ["1"])
    world.hub.down = ""
    assert await world.look(leaf("1")) == [set()]
    assert world.monitor.view.known


async def test_a_leaf_that_comes_is_seen_long_before_the_next_look_was_due(world: World) -> None:
    async with running(world.monitor):
        await world.hub.until_asked(1)
        world.monitor.look_soon()
        await world.hub.until_asked(2)


async def test_while_leafs_come_the_hub_is_asked_more_often(world: World) -> None:
    monitor = world.watch(Pace(idle=3600, busy=0.001, busy_for=3600, settle=0))
    async with running(monitor):
        await world.hub.until_asked(1)
        monitor.look_soon()
        await world.hub.until_asked(20)


async def test_nothing_is_asked_where_there_can_be_no_leafs(world: World) -> None:
    await world.look(leaf("1"))
    world.wanted = False
    monitor = world.watch(Pace(idle=0.001, settle=0))
    async with running(monitor):
        await asyncio.sleep(0.02)
        assert world.hub.asked == 1
        world.wanted = True
        await world.hub.until_asked(2)
        assert monitor.view.known
