"""The CustomResourceDefinitions of all kinds, made from the schemas that stand beside the types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgefarm import names
from edgefarm.api import edge_device, edge_network, network, policy, schema, stream


@dataclass(frozen=True)
class _Kind:
    kind: str
    plural: str
    short_name: str
    description: str
    spec: schema.Schema
    status: schema.Schema
    columns: tuple[tuple[str, str, str], ...]  # name, type, JSON path
    #: Whether its name may have dots, as every name may by the rules of Kubernetes.
    dotted: bool = False


_READY = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
)
_AGE = ("Age", "date", ".metadata.creationTimestamp")

_KINDS = (
    _Kind(
        "Network",
        "networks",
        "nw",
        "A network that is isolated from all others: one NATS account. Lives in the controller namespace.",
        network.SPEC,
        network.STATUS,
        (
            *_READY,
            ("Policies", "integer", ".status.policies"),
            ("Grants", "integer", ".status.grants"),
            ("Account", "string", ".status.account"),
            _AGE,
        ),
    ),
    _Kind(
        "Policy",
        "policies",
        "nwp",
        "What a group of service accounts may publish and subscribe in a network. Lives in a workload namespace.",
        policy.SPEC,
        policy.STATUS,
        (("Network", "string", ".status.network"), *_READY, ("Key", "integer", ".status.keyVersion"), _AGE),
    ),
    _Kind(
        "EdgeNetwork",
        "edgenetworks",
        "enw",
        "Nodes on which a network has a leaf NATS server of its own. Lives in the controller namespace.",
        edge_network.SPEC,
        edge_network.STATUS,
        (
            ("Network", "string", ".spec.network"),
            *_READY,
            ("Nodes", "integer", ".status.selected"),
            ("Connected", "integer", ".status.connected"),
            _AGE,
        ),
    ),
    _Kind(
        "Stream",
        "streams",
        "nws",
        "A JetStream stream in the hub or on every edge node of a network. Lives in a workload namespace.",
        stream.SPEC,
        stream.STATUS,
        (
            ("Network", "string", ".status.network"),
            ("Stream", "string", ".spec.name"),
            ("Location", "string", ".spec.location"),
            *_READY,
            _AGE,
        ),
    ),
    _Kind(
        "EdgeDevice",
        "edgedevices",
        "edev",
        "A host in the mesh: an edge host or a gateway of the cluster. Lives in the controller namespace.",
        edge_device.SPEC,
        edge_device.STATUS,
        (
            ("Role", "string", ".status.role"),
            ("Node", "string", ".status.node"),
            ("IPv4", "string", ".status.mesh.ipv4"),
            *_READY,
            *((path.capitalize(), "integer", f".status.counts.{path}") for path in edge_device.PATHS),
            _AGE,
        ),
        dotted=True,
    ),
)


def definitions() -> dict[str, dict[str, Any]]:
    """File name to CustomResourceDefinition."""
    return {f"{names.GROUP}_{kind.plural}.yaml": _definition(kind) for kind in _KINDS}


def _definition(kind: _Kind) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{names.GROUP}", "labels": {"app.kubernetes.io/name": "edgefarm-network"}},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": ["edgefarm"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": _schema(kind)},
                }
            ],
        },
    }


def _schema(kind: _Kind) -> schema.Schema:
    name_rule = {
        "rule": f"self.metadata.name.matches('{schema.DNS_LABEL}')",
        "message": f"the name of a {kind.kind} must be a DNS label: 1 to 63 lower-case letters, digits or '-', no dots",
    }
    return schema.obj(
        {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": kind.spec,
            "status": kind.status,
        },
        required=["spec"],
        description=kind.description,
        rules=[] if kind.dotted else [name_rule],
    )


def _column(name: str, type_: str, path: str) -> dict[str, str]:
    return {"name": name, "type": type_, "jsonPath": path}
