"""The shared informers of one process: one per source, whoever watches it. Implements `context.Stores`."""

from __future__ import annotations

import asyncio

import structlog

from reconciler.context import Store
from reconciler.ports import Kind, Kube
from reconciler.watch import Informer, Source, Timing


class Informers:
    """Makes informers on demand and runs them together."""

    def __init__(self, kube: Kube, *, log: structlog.stdlib.BoundLogger, timing: Timing | None = None) -> None:
        self._kube = kube
        self._log = log
        self._timing = timing or Timing()
        self._informers: dict[Source, Informer] = {}

    def informer(self, source: Source) -> Informer:
        """The informer of a source; the same one for everybody. All must be asked for before `run`."""
        if source not in self._informers:
            self._informers[source] = Informer(self._kube, source, log=self._log, timing=self._timing)
        return self._informers[source]

    def __call__(
        self, kind: Kind, *, namespace: str | None = None, labels: str | None = None, fields: str = ""
    ) -> Store:
        """The store of the one source that fits; LookupError when there is none, or more than one."""
        fitting = [
            informer.store
            for source, informer in self._informers.items()
            if source.kind == kind
            and source.fields == fields
            and namespace in (None, source.namespace)
            and labels in (None, source.labels)
        ]
        if len(fitting) != 1:
            raise LookupError(f"{len(fitting)} informers of {kind.plural} fit: watch it, or say which one is meant")
        return fitting[0]

    def unsynced(self) -> list[str]:
        """Plurals of what has not been listed yet."""
        return sorted({source.kind.plural for source, each in self._informers.items() if not each.synced.is_set()})

    def reconsider(self) -> None:
        """Follow what is needed now and was not before; whatever decides about that has changed."""
        for informer in self._informers.values():
            informer.reconsider()

    async def synced(self) -> None:
        """Return when every first list is in its store, of all that is needed."""
        for informer in self._informers.values():
            await informer.synced.wait()

    async def run(self) -> None:
        """Keep all stores fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run())
