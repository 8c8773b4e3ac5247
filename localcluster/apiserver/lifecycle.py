"""The end of objects: finalizers, graceful pod deletion, and what namespaces and definitions take with them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from localcluster.apiserver import definitions
from localcluster.apiserver.authorization.aggregation import aggregate
from localcluster.apiserver.authorization.rbac import CLUSTER_ROLES
from localcluster.apiserver.calls import Call, timestamp
from localcluster.apiserver.resources import Bucket, Registry, Resource
from localcluster.apiserver.store import Json, Store, Stored

_NAMESPACES: Final[Bucket] = ("", "namespaces")
_PODS: Final[Bucket] = ("", "pods")
_CRDS: Final[Bucket] = ("apiextensions.k8s.io", "customresourcedefinitions")
#: Finalizers that a deletion asks for; the garbage collector (a client) removes them.
_POLICY_FINALIZERS: Final = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}


class Lifecycle:
    """Begins and finishes deletions, and establishes definitions, as writes happen."""

    def __init__(self, store: Store, registry: Registry, served: definitions.Definitions) -> None:
        self._store = store
        self._registry = registry
        self._definitions = served

    def storage_version(self, resource: Resource) -> str:
        """apiVersion in which objects of this resource are kept."""
        if not resource.custom:
            return self._registry.stored(resource.bucket).api_version
        name = f"{resource.plural}.{resource.group}"
        definition = self._store.get(_CRDS, "", name)
        return definitions.storage_version(definition.content) if definition else resource.api_version

    def written(self, resource: Resource, stored: Stored, now: datetime) -> None:
        """What follows from a write: a definition is served, roles are aggregated."""
        if resource.bucket == CLUSTER_ROLES:
            aggregate(self._store)
        if resource.bucket != _CRDS or "deletionTimestamp" in stored.content["metadata"]:
            return
        self._definitions.establish(stored.content)
        status = definitions.accepted_status(stored.content, now)
        if stored.content.get("status") != status:
            self._store.put(_CRDS, stored.copy() | {"status": status}, stored)

    def is_finished(self, resource: Resource, obj: Json) -> bool:
        """Whether an object that is being deleted has nothing left to wait for."""
        metadata = obj["metadata"]
        if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
            return False
        if resource.bucket == _NAMESPACES:
            return not self._contents(metadata["name"])
        if resource.bucket == _CRDS:
            return not self._store.select(definitions.bucket_of(obj))
        return not metadata.get("deletionGracePeriodSeconds")

    def delete(self, call: Call, present: Stored, options: Json) -> tuple[Stored, bool]:
        """Mark as deleted and remove when nothing holds it; the last state and whether it is gone."""
        grace = _grace(call.resource, present.content, options)
        obj = present.copy()
        metadata = obj["metadata"]
        finalizer = _POLICY_FINALIZERS.get(options.get("propagationPolicy") or "")
        already = "deletionTimestamp" in metadata
        if not already and finalizer:
            metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]
        if not already or grace < metadata.get("deletionGracePeriodSeconds", 0):
            metadata["deletionTimestamp"] = timestamp(call.now + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
            if not already and "generation" in metadata:
                metadata["generation"] += 1
        if call.resource.bucket == _NAMESPACES:
            obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}
        if self.is_finished(call.resource, obj):
            # Kubernetes publishes the object as it was when nothing held it back.
            return self.remove(call.resource, present, None if not already else obj), True
        if obj == present.content:
            return present, False
        stored = self._store.put(call.resource.bucket, obj, present)
        self._empty(call, stored)
        left = self._store.get(call.resource.bucket, call.namespace, call.name)
        return left or stored, left is None

    def remove(self, resource: Resource, present: Stored, last: Json | None = None) -> Stored:
        """Remove an object, and then what only waited for it."""
        removed = self._store.remove(resource.bucket, present, last)
        if resource.bucket == CLUSTER_ROLES:
            aggregate(self._store)
        if resource.bucket == _CRDS:
            self._definitions.remove(removed.content)
            self._store.end_watches(definitions.bucket_of(removed.content))
        namespace = removed.content["metadata"].get("namespace", "")
        for bucket, name in ((_NAMESPACES, namespace), (_CRDS, f"{resource.plural}.{resource.group}")):
            holder = self._store.get(bucket, "", name)
            kind = self._registry.stored(bucket)
            if holder is not None and self.is_finished(kind, holder.content):
                self.remove(kind, holder)
        return removed

    def _empty(self, call: Call, holder: Stored) -> None:
        """Delete everything in a namespace, or every object of a definition."""
        metadata = holder.content["metadata"]
        if call.resource.bucket == _NAMESPACES:
            for bucket, stored in self._contents(metadata["name"]):
                self._delete_one(call, bucket, stored)
        elif call.resource.bucket == _CRDS:
            bucket = definitions.bucket_of(holder.content)
            for stored in self._store.select(bucket):
                self._delete_one(call, bucket, stored)

    def _delete_one(self, call: Call, bucket: Bucket, stored: Stored) -> None:
        metadata = stored.content["metadata"]
        resource = self._registry.stored(bucket)
        inner = Call(resource, call.user, call.now, metadata.get("namespace", ""), metadata["name"])
        if self._store.get(bucket, inner.namespace, inner.name) is stored:
            self.delete(inner, stored, {})

    def _contents(self, namespace: str) -> list[tuple[Bucket, Stored]]:
        return [
            (bucket, stored) for bucket in self._store.buckets() for stored in self._store.select(bucket, namespace)
        ]


def _grace(resource: Resource, obj: Json, options: Json) -> int:
    """Seconds a pod is given to end; 0 for anything that no kubelet has to stop."""
    if resource.bucket != _PODS:
        return 0
    if not obj["spec"].get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    wanted = options.get("gracePeriodSeconds")
    if wanted is None:
        wanted = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return int(wanted)
