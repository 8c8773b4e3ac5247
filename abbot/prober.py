"""Watches the peers of all tunnels: sends probes, and tells the host's network who is alive and which endpoint to try.

What to do is decided in abbot.liveness. Two tasks: one sends and never waits for the host's network, which may be busy
with a long request; the other looks at the tunnels and hands over what has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import structlog

from abbot.liveness import Cadence
from abbot.metrics import Metrics
from abbot.ports import HostNetwork, Tunnel
from abbot.tunnelwatch import TunnelWatch
from abbot.worker import Worker
from edgefarm.errors import EdgefarmError

#: A look at the tunnels of thousands of peers takes long: at most this part of the time is spent on it.
_SHARE_OF_LOOKING: Final = 0.1
_SHORTEST_GAP: Final = 0.2
#: Probes that are due within this time are sent together.
_TOGETHER: Final = 0.02
_IDENTIFIERS: Final = 1 << 16
T = TypeVar("T")


@dataclass(frozen=True)
class Chance:
    """Time and randomness."""

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random


class Prober:
    """Keeps the paths of a host's tunnels."""

    def __init__(
        self,
        host: HostNetwork,
        worker: Worker,
        cadence: Cadence,
        *,
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        chance: Chance | None = None,
    ) -> None:
        self._host = host
        self._worker = worker
        self._cadence = cadence
        self._metrics = metrics
        self._log = log
        self._chance = chance or Chance()
        self._identifier = int(self._chance.random() * _IDENTIFIERS)
        self._watches: dict[str, TunnelWatch] = {}
        self._due: list[tuple[float, str, str]] = []  # time, interface, public key
        self._scheduled: dict[tuple[str, str], float] = {}  # which entry of `_due` holds; others are out of date
        self._endpoints: dict[tuple[str, str], str] = {}  # to be set: (interface, public key) to endpoint
        self._look_wanted = True
        self._wake_sender = asyncio.Event()
        self._wake_keeper = asyncio.Event()

    def look(self) -> None:
        """The tunnels have changed: look at them soon."""
        self._look_wanted = True
        self._wake_keeper.set()

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._keep())
        finally:
            for watch in self._watches.values():
                watch.close()

    # ---- sending: never waits for the host's network

    async def _send(self) -> None:
        while True:
            now = self._chance.clock()
            for interface, public_key in self._take_due(now + _TOGETHER):
                self._step(interface, public_key, now)
            delay = self._due[0][0] - now if self._due else None
            await _wait(self._wake_sender, delay)

    def _take_due(self, until: float) -> list[tuple[str, str]]:
        """Interfaces and peers whose time comes until then, each one once."""
        taken = []
        while self._due and self._due[0][0] <= until:
            due, interface, public_key = heapq.heappop(self._due)
            if self._scheduled.get((interface, public_key)) == due:
                del self._scheduled[interface, public_key]
                taken.append((interface, public_key))
        return taken

    def _step(self, interface: str, public_key: str, now: float) -> None:
        watch = self._watches.get(interface)
        if watch is None or public_key not in watch.paths:
            return
        step = watch.step(public_key, now, self._chance.random(), _TOGETHER)
        self._schedule(watch, public_key)
        if step.endpoint is not None:
            self._endpoints[interface, public_key] = step.endpoint
        if watch.changed or step.endpoint is not None:
            self._wake_keeper.set()

    def _heard(self, watch: TunnelWatch) -> None:
        for public_key in watch.receive(self._chance.clock()):
            self._schedule(watch, public_key)
        self._wake_sender.set()
        if watch.changed:
            self._wake_keeper.set()

    def _schedule(self, watch: TunnelWatch, public_key: str) -> None:
        due = watch.paths[public_key].due
        if self._scheduled.get((watch.interface, public_key)) != due:
            self._scheduled[watch.interface, public_key] = due
            heapq.heappush(self._due, (due, watch.interface, public_key))

    # ---- the host's network

    async def _keep(self) -> None:
        looked = -1.0
        gap = 0.0
        while True:
            now = self._chance.clock()
            if now - looked >= (gap if self._look_wanted else max(gap, self._looking_every())):
                self._look_wanted = False
                await self._look()
                looked = self._chance.clock()
                gap = max(_SHORTEST_GAP, (looked - now) / _SHARE_OF_LOOKING)
            await self._hand_over()
            wait = gap if self._look_wanted else max(gap, self._looking_every())
            await _wait(self._wake_keeper, looked + wait - self._chance.clock())

    def _looking_every(self) -> float:
        return max((watch.cadence.probe_every for watch in self._watches.values()), default=self._cadence.probe_every)

    async def _look(self) -> None:
        tunnels = await self._asked("look at the tunnels", self._host.tunnels)
        if tunnels is None:
            return
        for interface in set(self._watches) - {tunnel.interface for tunnel in tunnels}:
            self._watches.pop(interface).close()
            self._metrics.forget(interface)
        self._take(tunnels)
        self._wake_sender.set()

    def _take(self, tunnels: Sequence[Tunnel]) -> None:
        now = self._chance.clock()
        for tunnel in tunnels:
            watch = self._watches.get(tunnel.interface)
            if watch is None:
                watch = TunnelWatch(tunnel.interface, self._identifier, self._heard)
                self._watches[tunnel.interface] = watch
            cadence = self._cadence.for_peers(len(tunnel.peers))
            new = watch.take(tunnel, cadence, now, self._chance.random)
            for public_key in new:
                self._schedule(watch, public_key)
            if not watch.listens:
                self._log.warning("cannot probe the peers", interface=tunnel.interface, reason=watch.problem)

    async def _hand_over(self) -> None:
        endpoints, self._endpoints = self._endpoints, {}
        for (interface, public_key), endpoint in endpoints.items():
            await self._asked(
                "set the endpoint of a peer", partial(self._host.set_endpoint, interface, public_key, endpoint)
            )
        for watch in list(self._watches.values()):
            if not watch.changed and not watch.stale:
                continue
            for public_key, is_alive in watch.take_changes():
                word = "peer is alive" if is_alive else "peer is dead"
                self._metrics.path_change(watch.interface, alive=is_alive)
                self._log.info(word, interface=watch.interface, peer=public_key)
            alive = watch.alive()
            self._metrics.peers(watch.interface, alive=len(alive), dead=len(watch.paths) - len(alive))
            await self._asked(
                "move the addresses of peers", partial(self._host.set_alive, watch.interface, alive, watch.rtts())
            )

    async def _asked(self, what: str, do: Callable[[], T]) -> T | None:
        """The host's network's answer; None when it failed. An endpoint is tried again in its turn, the rest later."""
        try:
            return await self._worker.run(do)
        except EdgefarmError as error:
            self._log.warning(f"cannot {what}", reason=str(error))
        except Exception:  # noqa: BLE001
            # Boundary of this worker: the tunnels go on as they are.
            self._log.exception(f"cannot {what}")
        return None


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    """Until the event is set or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
            await event.wait()
    event.clear()
