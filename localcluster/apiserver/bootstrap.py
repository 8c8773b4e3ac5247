"""What a fresh cluster holds before anybody writes to it."""

from __future__ import annotations

import uuid
from datetime import datetime

from localcluster.apiserver.calls import timestamp
from localcluster.apiserver.defaults import set_defaults
from localcluster.apiserver.resources import Registry
from localcluster.apiserver.store import Json, Store


def create_namespaces(store: Store, registry: Registry, now: datetime) -> None:
    """The four namespaces that every cluster has."""
    resource = registry.stored(("", "namespaces"))
    for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
        metadata = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now)}
        obj: Json = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        set_defaults(resource, obj)
        store.put(resource.bucket, obj, None)
