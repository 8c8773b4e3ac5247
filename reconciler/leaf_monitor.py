"""Knows which leafs are connected to the hub: one poll for all controllers, hastened when leafs come and go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from edgefarm.errors import EdgefarmError
from reconciler.desired.round_trip import has_moved
from reconciler.ports import LeafOnHub, LeafView, NatsSystem

#: Told of the leaf connections that have come, gone, or changed their round trip; empty: anything may have changed.
LeafHandler = Callable[[Sequence[LeafOnHub]], None]


@dataclass(frozen=True)
class Pace:
    """In seconds: how often the hub is asked, and how often while leafs come and go, for a leaf's two connections come
    one after the other. What happens within `settle` is seen together."""

    idle: float = 10.0
    busy: float = 2.0
    busy_for: float = 10.0
    settle: float = 1.0


class LeafMonitor:
    """Asks the hub for its leafs while `run` runs, and tells who came and went.

    Between two looks a leaf may have gone and come again: it then has another connection, and both are told.
    """

    def __init__(
        self,
        nats: Callable[[], NatsSystem],
        wanted: Callable[[], bool],
        *,
        log: structlog.stdlib.BoundLogger,
        pace: Pace | None = None,
    ) -> None:
        """Nothing is asked while `wanted` says that there can be no leafs."""
        self.view = LeafView()
        self._nats = nats
        self._wanted = wanted
        self._log = log
        self._pace = pace or Pace()
        self._handlers: list[LeafHandler] = []
        self._hurry = asyncio.Event()
        self._busy_until = 0.0
        self._told: dict[str, LeafOnHub] = {}

    def add_handler(self, handler: LeafHandler) -> None:
        """Call `handler` for every change from now on."""
        self._handlers.append(handler)

    def look_soon(self) -> None:
        """A leaf has perhaps come or gone (a `LeafListener`)."""
        self._busy_until = asyncio.get_running_loop().time() + self._pace.busy_for
        self._hurry.set()

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            if self._wanted():
                await self.look()
            else:
                self._forget()
            busy = asyncio.get_running_loop().time() < self._busy_until
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pace.busy if busy else self._pace.idle):
                    await self._hurry.wait()
            await asyncio.sleep(self._pace.settle)

    async def look(self) -> None:
        """Ask the hub now, and tell what has changed."""
        self._hurry.clear()
        before = self.view
        try:
            found = await self._nats().leafs()
        except EdgefarmError as error:
            self.view = replace(before, problem=str(error), asked=True)
            if before.problem != self.view.problem:
                self._log.warning("the hub does not tell which leafs are connected", reason=str(error))
                self._tell(())
            return
        self.view = LeafView(tuple(found), asked=True)
        changed = self._compare(found)
        if changed or not before.known:
            self._tell(changed if before.known else ())

    def _compare(self, found: Iterable[LeafOnHub]) -> list[LeafOnHub]:
        """What is worth telling, and is remembered as told."""
        now = {leaf.connection: leaf for leaf in found}
        changed = [self._told.pop(gone) for gone in self._told.keys() - now.keys()]
        for connection, leaf in now.items():
            told = self._told.get(connection)
            if told is None or told.listening != leaf.listening or has_moved(told.rtt, leaf.rtt):
                self._told[connection] = leaf
                changed.append(leaf)
        return changed

    def _forget(self) -> None:
        self._told.clear()
        self.view = LeafView()

    def _tell(self, changed: Sequence[LeafOnHub]) -> None:
        for handler in self._handlers:
            handler(changed)
