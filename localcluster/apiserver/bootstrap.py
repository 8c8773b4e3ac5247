"""What a fresh cluster holds before anybody writes to it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from ipaddress import IPv4Network
from typing import Final

from localcluster.apiserver import policies
from localcluster.apiserver.authorization.aggregation import aggregate
from localcluster.apiserver.authorization.default_roles import default_bindings, default_roles
from localcluster.apiserver.calls import timestamp
from localcluster.apiserver.defaults import set_defaults
from localcluster.apiserver.resources import Registry
from localcluster.apiserver.store import Json, Store

_RBAC: Final = "rbac.authorization.k8s.io"


def create_objects(store: Store, registry: Registry, services: IPv4Network, now: datetime) -> None:
    """What every cluster has: namespaces, priority classes, roles, the range of its Services."""
    for group, plural, obj in _objects(services, now):
        resource = registry.stored((group, plural))
        metadata = {**obj["metadata"], "uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now)}
        complete: Json = {"kind": resource.kind, "apiVersion": resource.api_version, **obj, "metadata": metadata}
        set_defaults(resource, complete)
        store.put(resource.bucket, complete, None)
    aggregate(store)


def _objects(services: IPv4Network, now: datetime) -> Iterator[tuple[str, str, Json]]:
    for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
        yield "", "namespaces", {"metadata": {"name": name}}
    for name, value in policies.SYSTEM_PRIORITIES.items():
        description = "Used for system critical pods that the cluster cannot do without."
        yield (
            "scheduling.k8s.io",
            "priorityclasses",
            {"metadata": {"name": name, "generation": 1}, "value": value, "description": description},
        )
    for role in default_roles():
        yield _RBAC, "clusterroles", role
    for binding in default_bindings():
        yield _RBAC, "clusterrolebindings", binding
    ready = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
    yield (
        "networking.k8s.io",
        "servicecidrs",
        {
            "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
            "spec": {"cidrs": [str(services)]},
            "status": {"conditions": [ready | {"lastTransitionTime": timestamp(now)}]},
        },
    )
