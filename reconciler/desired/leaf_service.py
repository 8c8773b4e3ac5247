"""Decides what the Service and the Secret are by which pods reach the leaf of their own node."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from edgefarm import names
from reconciler.certs import CertificateSettings
from reconciler.desired.owners import owner_reference
from reconciler.ports import NETWORK, SECRET, SERVICE, Kind, Object
from reconciler.status import merge_patch

#: Where leafs listen for clients.
CLIENT_PORT: Final = 4222
#: A node may be away for months: its leaf's certificate must last, and its pods must know the next authority in time.
CERTIFICATES: Final = CertificateSettings(
    authority_lifetime=timedelta(days=3650),
    server_lifetime=timedelta(days=365),
    spread=timedelta(days=30),
    authority_name="edgefarm-network leafs",
)
#: By these labels the Services and Secrets of leafs are found, in all networks.
LABELS: Final = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_TYPE: names.TYPE_LEAF}
SELECTOR: Final = ",".join(f"{name}={value}" for name, value in LABELS.items())


def wanted_service(network: Mapping[str, Any]) -> Object:
    """The Service of a network (raw JSON of the Network object)."""
    name = network["metadata"]["name"]
    return {
        **_object(network, SERVICE),
        "spec": {
            "type": "ClusterIP",
            "internalTrafficPolicy": "Local",
            "publishNotReadyAddresses": False,
            "selector": {names.LABEL_OF_NETWORK: name, names.LABEL_TYPE: names.TYPE_LEAF},
            "ports": [{"name": "nats", "port": CLIENT_PORT, "protocol": "TCP", "targetPort": CLIENT_PORT}],
        },
    }


def wanted_secret(network: Mapping[str, Any], data: Mapping[str, str]) -> Object:
    """The Secret with the certificate of a network's leafs."""
    return {**_object(network, SECRET), "type": "kubernetes.io/tls", "data": dict(data)}


def authority_secret(namespace: str, data: Mapping[str, str]) -> Object:
    """The Secret with the authorities of all networks' leafs; only the reconciler reads it."""
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {"name": names.LEAF_CA_SECRET, "namespace": namespace, "labels": dict(LABELS)},
        "type": "Opaque",
        "data": dict(data),
    }


def is_ours(found: Mapping[str, Any], network: Mapping[str, Any]) -> bool:
    """Whether an object of the right name was made by us for this network, even if somebody took its labels off."""
    metadata = found["metadata"]
    labels = metadata.get("labels") or {}
    labelled = labels.items() >= {**LABELS, names.LABEL_OF_NETWORK: network["metadata"]["name"]}.items()
    return labelled or _is_owned(metadata, network["metadata"]["uid"])


def mending_patch(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    """The merge patch that makes an object of ours what it shall be; empty when it is. What others add stays, except
    in `data` and in the Service's selector."""
    patch: Object = {}
    metadata = _metadata_patch(found["metadata"], wanted["metadata"])
    if "spec" in wanted:
        # The API server leaves out what is false.
        before = {"publishNotReadyAddresses": False, **found.get("spec", {})}
        spec = merge_patch({name: before[name] for name in wanted["spec"] if name in before}, wanted["spec"])
        if spec:
            patch["spec"] = spec
    if "data" in wanted:
        data = merge_patch(found.get("data") or {}, wanted["data"])
        if data:
            patch["data"] = data
    if metadata:
        patch["metadata"] = metadata
    return patch


def entry_urls(service: Mapping[str, Any]) -> tuple[str, ...]:
    """How pods reach the Service: by its address, because an edge node without uplink has no DNS."""
    return tuple(f"tls://{_bracketed(address)}:{CLIENT_PORT}" for address in addresses(service)[:1])


def addresses(service: Mapping[str, Any]) -> tuple[str, ...]:
    """The Service's cluster IPs, the primary one first; none while it has none."""
    spec = service.get("spec") or {}
    found = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return tuple(str(ip_address(address)) for address in found if address and address != "None")


def _object(network: Mapping[str, Any], kind: Kind) -> Object:
    metadata = network["metadata"]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": names.leaf_service(metadata["name"]),
            "namespace": metadata["namespace"],
            "labels": {**LABELS, names.LABEL_OF_NETWORK: metadata["name"]},
            "ownerReferences": [owner_reference(NETWORK, metadata["name"], metadata["uid"])],
        },
    }


def _metadata_patch(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Object:
    patch: Object = {}
    labels = found.get("labels") or {}
    missing = {name: value for name, value in wanted["labels"].items() if labels.get(name) != value}
    if missing:
        patch["labels"] = missing
    owners = wanted.get("ownerReferences", [])
    if any(not _is_owned(found, owner["uid"]) for owner in owners):
        patch["ownerReferences"] = [*(found.get("ownerReferences") or ()), *owners]
    return patch


def _is_owned(metadata: Mapping[str, Any], uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in metadata.get("ownerReferences") or ())


def _bracketed(address: str) -> str:
    return f"[{address}]" if isinstance(ip_address(address), IPv6Address) else address
