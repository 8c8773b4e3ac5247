"""The work queue: de-duplicates keys, never gives one key to two workers, delays and retries with back-off.

It may have lanes: keys of one lane never wait for workers of another.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)


class Timer(Protocol):
    """A pending call."""

    def cancel(self) -> None: ...

    def when(self) -> float: ...


#: `loop.call_later`: run a function after so many seconds.
CallLater = Callable[[float, Callable[[], None]], Timer]


@dataclass(frozen=True)
class Backoff:
    """Exponential delays in seconds: `first`, twice that, and so on up to `most`, each shortened at random."""

    first: float = 0.2
    most: float = 300.0

    def delay(self, failures: int, chance: float) -> float:
        """The delay after `failures` (one or more) in a row; `chance` from 0 to 1 keeps retries from marching in step.

        Between half of the full delay and all of it.
        """
        full: float = min(self.most, self.first * 2 ** min(failures - 1, 32))
        return full * (0.5 + chance / 2)


def _one_lane(_: object) -> str:
    return ""


class WorkQueue(Generic[K]):
    """A queue of keys. A key that is added while it waits is there once; while it is worked on, it comes again after.

    Every `get` must be followed by `done`.
    """

    def __init__(self, call_later: CallLater, chance: Callable[[], float], backoff: Backoff | None = None) -> None:
        self._call_later = call_later
        self._chance = chance
        self._backoff = backoff or Backoff()
        self._lane: Callable[[K], str] = _one_lane
        self._ready: defaultdict[str, asyncio.Queue[K]] = defaultdict(asyncio.Queue)
        self._wanted: set[K] = set()  # waiting, or added again while being worked on
        self._working: set[K] = set()
        self._timers: dict[K, Timer] = {}
        self._failures: dict[K, int] = {}

    def divide(self, lane: Callable[[K], str]) -> None:
        """Let `lane` say in which lane a key waits, always the same for one key; before the first key is added."""
        self._lane = lane

    @property
    def depth(self) -> int:
        """Keys that wait for a worker now."""
        return sum(ready.qsize() for ready in self._ready.values())

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is worked on (delayed keys do not count)."""
        return not self._wanted and not self._working

    def add(self, key: K) -> None:
        """Have the key worked on as soon as possible."""
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._ready[self._lane(key)].put_nowait(key)

    def add_after(self, key: K, delay: float) -> None:
        """Have the key worked on after `delay` seconds at the latest; the earliest of several delays counts."""
        if delay <= 0:
            self.add(key)
            return
        timer = self._call_later(delay, lambda: self._due(key))
        pending = self._timers.get(key)
        if pending is not None and pending.when() <= timer.when():
            timer.cancel()
            return
        if pending is not None:
            pending.cancel()
        self._timers[key] = timer

    def retry(self, key: K) -> float:
        """Have a key that failed worked on again after its back-off; return the delay in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(self._failures[key], self._chance())
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key succeeded: its next failure is a first one."""
        self._failures.pop(key, None)

    async def get(self, lane: str = "") -> K:
        """The next key of a lane. A delay that is pending for it is dropped: the pass that begins now decides anew."""
        key = await self._ready[lane].get()
        self._wanted.discard(key)
        self._working.add(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        return key

    def done(self, key: K) -> None:
        """The worker has finished with the key."""
        self._working.discard(key)
        if key in self._wanted:
            self._ready[self._lane(key)].put_nowait(key)

    def close(self) -> None:
        """Drop all delayed keys."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
