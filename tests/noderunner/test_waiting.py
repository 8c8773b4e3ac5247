"""Waiting for an event on a node."""

from __future__ import annotations

import asyncio

import pytest

from localcluster.node.waiting import set_within


@pytest.mark.parametrize("steps", range(5))
async def test_a_cancellation_in_the_moment_of_the_event_is_not_lost(steps: int) -> None:
    event = asyncio.Event()

    async def wait_for_ever() -> None:
        while True:
            await set_within(event, 60)
            event.clear()

    task = asyncio.create_task(wait_for_ever())
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done == {task}
    assert task.cancelled()


async def test_waiting_ends_without_the_event_too() -> None:
    await set_within(asyncio.Event(), 0.01)
