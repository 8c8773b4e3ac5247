"""The work queue, with timers that a test fires by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from reconciler.queue import Backoff, WorkQueue


@dataclass
class Timer:
    at: float
    run: Callable[[], None]
    cancelled: bool = False

    def when(self) -> float:
        return self.at

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Timers:
    """A clock that stands still until `advance`."""

    now: float = 0.0
    pending: list[Timer] = field(default_factory=list)

    def call_later(self, delay: float, run: Callable[[], None]) -> Timer:
        timer = Timer(self.now + delay, run)
        self.pending.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((timer for timer in self.pending if timer.at <= self.now), key=Timer.when)
        for timer in due:
            self.pending.remove(timer)
            if not timer.cancelled:
                timer.run()


@pytest.fixture
def timers() -> Timers:
    return Timers()


@pytest.fixture
def queue(timers: Timers) -> WorkQueue[str]:
    return WorkQueue(timers.call_later, lambda: 1.0)


async def test_a_key_added_often_is_given_once(queue: WorkQueue[str]) -> None:
    for _ in range(3):
        queue.add("a")
    assert queue.depth == 1
    assert await queue.get() == "a"
    assert queue.depth == 0


async def test_keys_come_in_the_order_in_which_they_were_added(queue: WorkQueue[str]) -> None:
    for key in "abc":
        queue.add(key)
    assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]


async def test_a_key_being_worked_on_is_not_given_to_a_second_worker(queue: WorkQueue[str]) -> None:
    queue.add("a")
    await queue.get()
    queue.add("a")
    second = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not second.done()
    queue.done("a")
    assert await second == "a"


async def test_a_key_that_nobody_added_meanwhile_does_not_come_again(queue: WorkQueue[str]) -> None:
    queue.add("a")
    queue.done(await queue.get())
    assert queue.idle


async def test_a_delayed_key_comes_when_its_time_has_come(queue: WorkQueue[str], timers: Timers) -> None:
    queue.add_after("a", 10)
    timers.advance(9)
    assert queue.depth == 0
    timers.advance(1)
    assert queue.depth == 1


@pytest.mark.parametrize("delays", [(10, 5), (5, 10)])
async def test_the_earliest_of_several_delays_counts(
    queue: WorkQueue[str], timers: Timers, delays: tuple[int, int]
) -> None:
    for delay in delays:
        queue.add_after("a", delay)
    timers.advance(5)
    queue.done(await queue.get())
    timers.advance(100)
    assert queue.idle


async def test_a_pass_makes_pending_delays_of_its_key_void(queue: WorkQueue[str], timers: Timers) -> None:
    queue.add_after("a", 10)
    queue.add("a")
    queue.done(await queue.get())
    timers.advance(10)
    assert queue.idle


async def test_retries_wait_longer_and_longer_until_the_key_succeeds(queue: WorkQueue[str]) -> None:
    assert [queue.retry("a") for _ in range(4)] == [0.2, 0.4, 0.8, 1.6]
    assert queue.retry("b") == 0.2
    queue.forget("a")
    assert queue.retry("a") == 0.2


async def test_a_lane_does_not_wait_for_the_keys_of_another(queue: WorkQueue[str]) -> None:
    queue.divide(lambda key: "slow" if key.startswith("slow") else "")
    for key in ("slow-1", "slow-2", "quick"):
        queue.add(key)
    assert queue.depth == 3
    assert await queue.get() == "quick"
    assert await queue.get("slow") == "slow-1"
    queue.add("slow-1")
    queue.done("slow-1")
    assert [await queue.get("slow") for _ in range(2)] == ["slow-2", "slow-1"]


async def test_a_closed_queue_drops_what_was_delayed(queue: WorkQueue[str], timers: Timers) -> None:
    queue.add_after("a", 10)
    queue.close()
    timers.advance(10)
    assert queue.idle


@pytest.mark.parametrize(("failures", "full"), [(1, 0.2), (2, 0.4), (11, 204.8), (12, 300.0), (10_000, 300.0)])
def test_a_backoff_grows_to_its_limit_with_up_to_half_of_it_off(failures: int, full: float) -> None:
    assert Backoff().delay(failures, 1.0) == pytest.approx(full)
    assert Backoff().delay(failures, 0.0) == pytest.approx(full / 2)
