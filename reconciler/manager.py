"""Turns changes of objects into keys, and keys into passes of controllers: mappers, queue, workers and resync."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import structlog

from edgefarm.errors import Conflict, EdgefarmError, Refused, Unavailable
from reconciler.context import Key, Registration, Watch
from reconciler.informers import Informers
from reconciler.metrics import Metrics
from reconciler.ports import LeafOnHub, Object
from reconciler.queue import WorkQueue
from reconciler.watch import Handler, Informer, Source

T = TypeVar("T")


class Manager:
    """The controllers of one process. Register them all, then `run` while this process leads."""

    def __init__(
        self,
        informers: Informers,
        queue: WorkQueue[Key],
        *,
        resync: Callable[[], timedelta],
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._informers = informers
        self._queue = queue
        self._resync = resync
        self._metrics = metrics
        self._log = log
        self._registrations: dict[str, Registration] = {}
        self._watches: list[tuple[Informer, Watch]] = []
        self._draining = asyncio.Event()
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        queue.divide(self._lane)

    def register(self, registrations: Sequence[Registration]) -> None:
        """Add controllers; watches of the same source share one informer."""
        for registration in registrations:
            name = registration.controller.name
            if name in self._registrations:
                raise ValueError(f"two controllers are called {name!r}")
            self._registrations[name] = registration
            for watch in registration.watches:
                informer = self._informers.informer(Source(watch.kind, watch.namespace, watch.labels, watch.fields))
                for index, indexer in watch.indexes.items():
                    informer.store.add_index(index, indexer)
                informer.add_need(watch.needed)
                informer.add_handler(self._handler(watch))
                self._watches.append((informer, watch))

    def enqueue_all(self) -> None:
        """Have every root looked at again, as if all objects had changed."""
        for registration in self._registrations.values():
            for key in registration.always:
                self._queue.add(key)
        for informer, watch in self._watches:
            handle = self._handler(watch)
            for obj in informer.store.list():
                handle(obj, obj)

    def leafs_changed(self, leafs: Sequence[LeafOnHub]) -> None:
        """Have the roots looked at that these leaf connections concern; none: whatever has to do with leafs."""
        for name, registration in self._registrations.items():
            if registration.leafs is not None:
                self._add_mapped(name, registration.leafs, leafs)

    def agents_changed(self, devices: Sequence[str]) -> None:
        """Have the roots looked at that the agents of these devices concern."""
        for name, registration in self._registrations.items():
            if registration.agents is not None:
                self._add_mapped(name, registration.agents, devices)

    async def run(self, workers: int) -> None:
        """Work until cancelled; the stores must be synced. `workers` are for all controllers that have none of their
        own."""
        self.enqueue_all()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._resync_for_ever())
            lanes = {"": workers} | {name: each.workers for name, each in self._registrations.items() if each.workers}
            for lane, count in lanes.items():
                for _ in range(count):
                    group.create_task(self._work(lane))

    async def drain(self, grace: float) -> bool:
        """Begin no more passes, and wait for those under way; False when they did not end within `grace` seconds."""
        self._draining.set()
        self._queue.close()
        try:
            async with asyncio.timeout(grace):
                await self._quiet.wait()
        except TimeoutError:
            return False
        return True

    def _add_mapped(self, controller: str, mapper: Callable[[T], Iterable[Key]], changed: T) -> None:
        try:
            for key in mapper(changed):
                self._queue.add(key)
        except Exception:  # noqa: BLE001 (boundary: one controller's bug must not stop the others)
            self._log.exception("what has changed could not be mapped to its roots", controller=controller)

    def _handler(self, watch: Watch) -> Handler:
        def handle(old: Object | None, new: Object | None) -> None:
            try:
                for key in watch.mapper(old, new):
                    self._queue.add(key)
            except Exception:  # noqa: BLE001 (boundary: one mapper's bug on one object must not stop the others)
                self._log.exception("an object could not be mapped to its root", kind=watch.kind.kind)

        return handle

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._resync().total_seconds())
            self.enqueue_all()

    def _lane(self, key: Key) -> str:
        return key.controller if self._registrations[key.controller].workers else ""

    async def _work(self, lane: str) -> None:
        while not self._draining.is_set():
            key = await self._queue.get(lane)
            if self._draining.is_set():
                return
            self._busy += 1
            self._quiet.clear()
            try:
                await self._pass(key)
            finally:
                self._queue.done(key)
                self._busy -= 1
                if not self._busy:
                    self._quiet.set()

    async def _pass(self, key: Key) -> None:
        controller, log = self._registrations[key.controller].controller, self._log.bind(key=str(key))
        began = time.perf_counter()
        outcome = "cancelled"
        try:
            result = await controller.reconcile(key)
            outcome = "success"
        except Conflict as error:
            outcome = "waiting"
            log.debug("an object changed meanwhile", reason=str(error), retry_seconds=self._retry(key))
        except EdgefarmError as error:
            outcome = _outcome(error)
            log.warning("the pass failed", reason=str(error), retry_seconds=self._retry(key))
        except Exception:  # the worker's boundary: whatever it was, the key is tried again
            outcome = "error"
            log.exception("the pass failed unexpectedly", retry_seconds=self._retry(key))
        else:
            self._queue.forget(key)
            if result.requeue_after is not None:
                self._queue.add_after(key, result.requeue_after.total_seconds())
        finally:
            seconds = time.perf_counter() - began
            self._metrics.reconciles.labels(key.controller, outcome).inc()
            self._metrics.duration.labels(key.controller).observe(seconds)
            log.debug("pass", outcome=outcome, seconds=round(seconds, 3))

    def _retry(self, key: Key) -> float:
        self._metrics.retries.labels(key.controller).inc()
        return round(self._queue.retry(key), 1)


def _outcome(error: EdgefarmError) -> str:
    if isinstance(error, Unavailable):
        return "waiting"
    return "refused" if isinstance(error, Refused) else "error"
