"""Deletion with its dependents first (`foregroundDeletion`) or without them (`orphan`): acts on the two finalizers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from localcluster.client import Client, Json, Resource
from localcluster.informer import key_of

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"

#: An object with the resource that it is one of.
Item = tuple[Resource, Json]


async def cascade(client: Client, items: Iterable[Item]) -> None:
    """Bring every object that waits for one of the two finalizers one step further."""
    present = list(items)
    for resource, item in present:
        if "deletionTimestamp" not in item["metadata"]:
            continue
        finalizers = item["metadata"].get("finalizers") or []
        dependents = [found for found in present if _depends(found[1], item["metadata"]["uid"])]
        if ORPHAN in finalizers:
            for dependent in dependents:
                await _let_go(client, dependent, item["metadata"]["uid"])
            await _finish(client, resource, item, ORPHAN)
        elif FOREGROUND in finalizers and not dependents:
            await _finish(client, resource, item, FOREGROUND)
        elif FOREGROUND in finalizers:
            for kind, waiting in dependents:
                if "deletionTimestamp" not in waiting["metadata"]:
                    namespace, name = key_of(waiting)
                    await client.delete(kind, name, namespace, uid=waiting["metadata"]["uid"])


def _depends(item: Json, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences") or [])


async def _let_go(client: Client, dependent: Item, uid: str) -> None:
    resource, item = dependent
    kept = [owner for owner in item["metadata"]["ownerReferences"] if owner["uid"] != uid]
    await _patch(client, resource, item, {"ownerReferences": kept})


async def _finish(client: Client, resource: Resource, item: Json, finalizer: str) -> None:
    kept = [entry for entry in item["metadata"]["finalizers"] if entry != finalizer]
    await _patch(client, resource, item, {"finalizers": kept})


async def _patch(client: Client, resource: Resource, item: Json, metadata: Json) -> None:
    namespace, name = key_of(item)
    # With the version that was read: a list is replaced as a whole, so nobody's change may lie between.
    metadata["resourceVersion"] = item["metadata"]["resourceVersion"]
    await client.patch(resource, name, {"metadata": metadata}, namespace)
