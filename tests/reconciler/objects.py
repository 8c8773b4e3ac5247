"""Raw Networks, Policies and pods as the API server would send them, and a configuration, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from edgefarm import names
from edgefarm.vault import VaultSettings
from reconciler.configuration import (
    Configuration,
    CredentialsConfiguration,
    KeysConfiguration,
    LeafConfiguration,
    NatsConfiguration,
    StreamsConfiguration,
    VaultConfiguration,
    WebhookConfiguration,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def network(name: str = "foo", namespaces: Sequence[str] = ("factory",), **spec: Any) -> dict[str, Any]:
    """A Network."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Network",
        "metadata": _metadata(name, names.CONTROLLER_NAMESPACE, NOW),
        "spec": {"namespaces": list(namespaces), **spec},
    }


def policy(
    name: str = "sensor",
    namespace: str = "factory",
    *,
    created: datetime = NOW,
    annotations: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """A Policy that may publish sensor.> unless `spec` says something else."""
    metadata = _metadata(name, namespace, created)
    metadata |= {"annotations": dict(annotations or {}), "labels": dict(labels or {})}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Policy",
        "metadata": metadata,
        "spec": {"allowpub": ["sensor.>"], **spec},
    }


def copy_of_default(network: str = "foo", namespace: str = "factory", **spec: Any) -> dict[str, Any]:
    """A copy of the network's default policy as the reconciler makes it."""
    labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_OF_NETWORK: network}
    return policy(network, namespace, labels=labels, network=network, **spec)


def edge_network(name: str = "plant", *, created: datetime = NOW, **spec: Any) -> dict[str, Any]:
    """An EdgeNetwork of network foo unless `spec` says something else."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "EdgeNetwork",
        "metadata": _metadata(name, names.CONTROLLER_NAMESPACE, created),
        "spec": {"network": "foo", **spec},
    }


def stream(
    name: str = "readings", namespace: str = "factory", *, created: datetime = NOW, **spec: Any
) -> dict[str, Any]:
    """A Stream READINGS at the edge that stores sensor.> unless `spec` says something else."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Stream",
        "metadata": _metadata(name, namespace, created),
        "spec": {"name": "READINGS", "location": "edge", "subjects": ["sensor.>"], **spec},
    }


def pod(name: str = "app", namespace: str = "factory", network: str = "foo", account: str = "sensor") -> dict[str, Any]:
    """A labelled and injected pod."""
    metadata = _metadata(name, namespace, NOW) | {"labels": {names.LABEL_NETWORK: network}}
    containers = {"initContainers": [{"name": names.SIDECAR_CONTAINER}], "containers": [{"name": "app"}]}
    spec = {"serviceAccountName": account, **containers}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def deleting(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object while only finalizers keep it."""
    return {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "2026-03-01T12:00:00Z"}}


def configuration(**changes: Any) -> Configuration:
    """A configuration with the defaults of docs/architecture.md; `changes` replace whole sections."""
    base = Configuration(
        vault=VaultConfiguration(
            VaultSettings("https://127.0.0.1:8200"), "https://127.0.0.1:8200", names.DEFAULT_AUDIENCE
        ),
        nats=NatsConfiguration(("tls://hub:4222",), ("tls://hub:4222",), ("tls://hub:7422",), None),
        credentials=CredentialsConfiguration(timedelta(hours=1), timedelta(days=30)),
        keys=KeysConfiguration(timedelta(days=90), timedelta(days=31)),
        webhook=WebhookConfiguration(False, ()),
        leaf=LeafConfiguration("sidecar:1", "nats:2.15"),
        streams=StreamsConfiguration("native"),
        resync=timedelta(minutes=10),
    )
    return replace(base, **changes)


def _metadata(name: str, namespace: str, created: datetime) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}-{name}",
        "generation": 1,
        "creationTimestamp": created.isoformat(),
    }
