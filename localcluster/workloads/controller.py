"""The frame of every workload controller: keys from informers, one worker per key, retries with back-off."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import structlog

from edgefarm.errors import Conflict, EdgefarmError
from localcluster.client import Client, Json, Resource
from localcluster.events import EventRecorder
from localcluster.informer import Informer, Key, key_of
from localcluster.workloads.pods import controller_of

_BACKOFF: Final = 0.2
_BACKOFF_MAX: Final = 5.0
_log = structlog.get_logger()


@dataclass(frozen=True)
class Cluster:
    """What controllers share. Informers only say that something moved; decisions are made on fresh reads."""

    client: Client
    informers: Mapping[Resource, Informer]
    recorder: EventRecorder


class Retry(Exception):
    """The world is not as wanted yet, and nothing will tell: look again after `seconds`, or with back-off if None."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        super().__init__(seconds)


class Controller(ABC):
    """Makes one root object's world right. A reconciler gets a key, never an event."""

    #: The root kind.
    resource: ClassVar[Resource]
    kind: ClassVar[str]
    #: Kinds whose objects name the root as their controller.
    owned: ClassVar[tuple[Resource, ...]] = ()

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = cluster.client
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._dirty: set[Key] = set()
        cluster.informers[self.resource].listen(lambda obj: self.enqueue(key_of(obj)))
        for resource in self.owned:
            cluster.informers[resource].listen(self._enqueue_owner)

    @abstractmethod
    async def reconcile(self, key: Key) -> None:
        """Look at the world of this key and bring it one step nearer to what is wanted."""

    def enqueue(self, key: Key) -> None:
        """See to this key soon; many calls make one run."""
        self._dirty.add(key)
        if key not in self._running:
            name = f"{type(self).__name__} {'/'.join(key)}"
            self._running[key] = asyncio.create_task(self._work(key), name=name)

    def enqueue_all(self) -> None:
        for key in self.cluster.informers[self.resource].items:
            self.enqueue(key)

    def _enqueue_owner(self, obj: Json) -> None:
        name = controller_of(obj, self.kind)
        if name is not None:
            self.enqueue((obj["metadata"].get("namespace", ""), name))

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, key: Key) -> None:
        failures = 0
        try:
            while key in self._dirty:
                self._dirty.discard(key)
                pause = await self._attempt(key, failures)
                failures = 0 if pause is None else failures + 1
                if pause is not None:
                    self._dirty.add(key)
                    await asyncio.sleep(pause)
        finally:
            del self._running[key]

    async def _attempt(self, key: Key, failures: int) -> float | None:
        """Run once: None when done, else seconds until the next attempt."""
        backoff = float(min(_BACKOFF * 2**failures, _BACKOFF_MAX))
        try:
            await self.reconcile(key)
        except Retry as retry:
            return backoff if retry.seconds is None else retry.seconds
        except (Conflict, EdgefarmError) as error:
            _log.info("reconcile failed", controller=type(self).__name__, key="/".join(key), error=str(error))
            return backoff
        except Exception:  # noqa: BLE001 — the boundary of one worker: a bug must not stop the other keys
            _log.exception("reconcile failed", controller=type(self).__name__, key="/".join(key))
            return _BACKOFF_MAX
        return None
