"""Informer: a cache of all objects of one resource that lists, watches and lists again, and says what moved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from edgefarm.errors import KubernetesRefused, Unavailable
from localcluster.client import Client, Json, Resource

#: (namespace, name); namespace is empty for objects of the cluster.
Key = tuple[str, str]
Listener = Callable[[Json], None]

_log = structlog.get_logger()


def key_of(obj: Json) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Informer:
    """Mirror of one resource. Listeners are called with every object that was added, changed or removed.

    It is level-triggered: after any trouble it lists again and calls the listeners for everything that is there
    and for what disappeared meanwhile, so a listener never misses a state.
    """

    def __init__(self, client: Client, resource: Resource, *, fields: str = "", retry_seconds: float = 0.5) -> None:
        self.resource = resource
        self.items: dict[Key, Json] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._fields = fields
        self._retry_seconds = retry_seconds
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._list_and_watch()
            except (Unavailable, KubernetesRefused) as error:
                _log.debug("watch ended", resource=self.resource.plural, error=str(error))
                await asyncio.sleep(self._retry_seconds)

    async def _list_and_watch(self) -> None:
        items, version = await self._client.list(self.resource, fields=self._fields)
        before, self.items = self.items, {key_of(item): item for item in items}
        self.synced.set()
        for key, item in before.items():
            if key not in self.items:
                self._tell(item)
        for item in items:
            self._tell(item)
        async for kind, obj in self._client.watch(self.resource, version, fields=self._fields):
            if kind == "BOOKMARK":
                continue
            if kind == "DELETED":
                self.items.pop(key_of(obj), None)
            else:
                self.items[key_of(obj)] = obj
            self._tell(obj)

    def _tell(self, obj: Json) -> None:
        for listener in self._listeners:
            listener(obj)
