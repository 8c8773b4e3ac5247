"""Garbage collection: an object goes when all of its owners are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import structlog

from edgefarm.errors import EdgefarmError
from localcluster.client import CUSTOM_RESOURCE_DEFINITIONS, Client, Json, Resource
from localcluster.informer import Informer, key_of
from localcluster.workloads.cascade import Item, cascade

_RETRY_SECONDS: Final = 1.0
_log = structlog.get_logger()


class GarbageCollector:
    """Watches the given resources and all custom resources."""

    def __init__(self, client: Client, informers: Iterable[Informer]) -> None:
        self._client = client
        self._informers = {informer.resource: informer for informer in informers}
        self._custom_tasks: dict[Resource, asyncio.Task[None]] = {}
        self._moved = asyncio.Event()
        for informer in self._informers.values():
            informer.listen(self._wake)

    async def run(self) -> None:
        """Collect whenever something moved, until cancelled."""
        try:
            while True:
                await self._moved.wait()
                self._moved.clear()
                self._follow_definitions()
                try:
                    await self._collect()
                    await cascade(self._client, self._items())
                except EdgefarmError as error:
                    _log.info("garbage not collected", error=str(error))
                    self._moved.set()
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            for task in self._custom_tasks.values():
                task.cancel()
            await asyncio.gather(*self._custom_tasks.values(), return_exceptions=True)

    def _wake(self, _: Json) -> None:
        self._moved.set()

    def _follow_definitions(self) -> None:
        """Watch the custom resources that are defined now, and no others."""
        defined = set()
        for definition in self._informers[CUSTOM_RESOURCE_DEFINITIONS].items.values():
            spec = definition["spec"]
            version = next((entry["name"] for entry in spec["versions"] if entry.get("served")), None)
            if version is not None:
                defined.add(Resource(f"{spec['group']}/{version}", spec["names"]["plural"]))
        for resource in defined - self._custom_tasks.keys():
            informer = self._informers[resource] = Informer(self._client, resource)
            informer.listen(self._wake)
            self._custom_tasks[resource] = asyncio.create_task(informer.run(), name=f"informer {resource.plural}")
        for resource in self._custom_tasks.keys() - defined:
            self._custom_tasks.pop(resource).cancel()
            del self._informers[resource]

    def _items(self) -> list[Item]:
        return [(informer.resource, item) for informer in self._informers.values() for item in informer.items.values()]

    async def _collect(self) -> None:
        uids = {item["metadata"]["uid"] for informer in self._informers.values() for item in informer.items.values()}
        for informer in list(self._informers.values()):
            for item in list(informer.items.values()):
                owners = item["metadata"].get("ownerReferences") or []
                if not owners or "deletionTimestamp" in item["metadata"]:
                    continue
                if any(owner["uid"] in uids for owner in owners):
                    continue
                if not await self._has_owner(item, owners):
                    namespace, name = key_of(item)
                    _log.info("collected", resource=informer.resource.plural, namespace=namespace, name=name)
                    await self._client.delete(informer.resource, name, namespace, uid=item["metadata"]["uid"])

    async def _has_owner(self, item: Json, owners: list[Json]) -> bool:
        """Ask the API server, because a cache may not know an owner yet, or not watch its kind."""
        for owner in owners:
            try:
                resource, namespaced = await self._client.resource_of(owner["apiVersion"], owner["kind"], within=0)
            except EdgefarmError:
                return True  # a kind that is not served now: nothing can be said
            namespace = item["metadata"].get("namespace", "") if namespaced else ""
            if namespaced and not namespace:
                return True  # an object of the cluster cannot have such an owner; Kubernetes leaves it alone
            found = await self._client.find(resource, owner["name"], namespace)
            if found is not None and found["metadata"]["uid"] == owner["uid"]:
                return True
        return False
