"""The EdgeNetwork kind: on which nodes a network has leaf NATS servers, and what these may store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgefarm import names
from edgefarm.api import schema
from edgefarm.api.meta import Meta
from edgefarm.api.network import Limits
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource

_OPERATORS: Final = ("Equal", "Exists")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_LONGEST_TOLERATION: Final = 2**31 - 1


@dataclass(frozen=True)
class Toleration:
    """A toleration as in a pod; empty text means "not given"."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    seconds: int | None = None

    def raw(self) -> dict[str, Any]:
        """As it stands in a pod."""
        members = {"key": self.key, "operator": self.operator, "value": self.value, "effect": self.effect}
        given: dict[str, Any] = {name: value for name, value in members.items() if value}
        return given | ({} if self.seconds is None else {"tolerationSeconds": self.seconds})

    def tolerates(self, taint: Mapping[str, Any]) -> bool:
        """Whether it matches a node's taint, by the rules of Kubernetes."""
        if self.effect and self.effect != taint.get("effect"):
            return False
        if self.operator == "Exists":
            return self.key in ("", taint.get("key"))
        return self.key == taint.get("key") and self.value == (taint.get("value") or "")


@dataclass(frozen=True)
class EdgeNetwork:
    """One EdgeNetwork object. `limits` are per node; an empty selector selects every node, as in Kubernetes."""

    meta: Meta
    network: str
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def name(self) -> str:
        return self.meta.name

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> EdgeNetwork:
        """Parse raw JSON; raise InvalidResource with the field's path, InvalidName for a name with dots."""
        meta = Meta.parse(obj)
        names.check_label(meta.name, "edge network")
        spec = Fields(obj.get("spec", {}), "spec")
        edge = cls(
            meta=meta,
            network=names.check_label(spec.text("network"), "network"),
            node_selector=spec.mapping("nodeSelector"),
            tolerations=tuple(map(_read_toleration, spec.objects("tolerations"))),
            limits=Limits.read(spec.child("limits")),
        )
        spec.closed()
        return edge


def _read_toleration(fields: Fields) -> Toleration:
    toleration = Toleration(
        key=fields.text("key", ""),
        operator=fields.choice("operator", _OPERATORS, "Equal"),
        value=fields.text("value", ""),
        effect=fields.choice("effect", _EFFECTS) if fields.has("effect") else "",
        seconds=fields.integer("tolerationSeconds", 0, low=-_LONGEST_TOLERATION, high=_LONGEST_TOLERATION)
        if fields.has("tolerationSeconds")
        else None,
    )
    fields.closed()
    if toleration.operator == "Exists" and toleration.value:
        raise InvalidResource(fields.path("value"), "must be left out where operator is Exists")
    if toleration.operator == "Equal" and not toleration.key:
        raise InvalidResource(fields.path("key"), "is required unless operator is Exists")
    if toleration.seconds is not None and toleration.effect != "NoExecute":
        raise InvalidResource(fields.path("effect"), "must be NoExecute where tolerationSeconds is given")
    return toleration


_TOLERATION: Final = schema.obj(
    {
        "key": schema.text("Key of the taint; empty with operator Exists: every taint.", maxLength=316),
        "operator": schema.text("Exists, or Equal (default) to compare the value, too.", enum=list(_OPERATORS)),
        "value": schema.text("Value of the taint.", maxLength=63),
        "effect": schema.text("Effect of the taint; unset: every effect.", enum=list(_EFFECTS)),
        "tolerationSeconds": schema.integer("How long a NoExecute taint is tolerated; unset: for ever."),
    },
    rules=[
        {
            "rule": "!(has(self.operator) && self.operator == 'Exists' && has(self.value) && self.value != '')",
            "message": "value must be left out where operator is Exists",
        },
        {
            "rule": "(has(self.operator) && self.operator == 'Exists') || (has(self.key) && self.key != '')",
            "message": "key is required unless operator is Exists",
        },
        {
            "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "message": "effect must be NoExecute where tolerationSeconds is given",
        },
    ],
)

SPEC: Final = schema.obj(
    {
        "network": schema.text(
            "Network that the leafs belong to.", minLength=1, maxLength=63, pattern=schema.DNS_LABEL
        ),
        "nodeSelector": {
            "type": "object",
            "description": "Labels of the nodes that get a leaf, as in a pod. Empty: every node.",
            "maxProperties": 64,
            "additionalProperties": {"type": "string", "maxLength": 63},
        },
        "tolerations": {
            "type": "array",
            "description": "Taints that the leafs tolerate, as in a pod.",
            "maxItems": 64,
            "x-kubernetes-list-type": "atomic",
            "items": _TOLERATION,
        },
        "limits": schema.limits("on each of the nodes"),
    },
    required=["network"],
    description="Where the network has leafs, and what they may store.",
)

STATUS: Final = schema.obj(
    {
        "conditions": schema.CONDITIONS,
        "selected": schema.integer("Nodes that are selected."),
        "connected": schema.integer("Leafs that are connected to the hub."),
        "nodes": {
            "type": "array",
            "description": "What was observed on each selected node.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": schema.obj(
                {
                    "name": schema.text("Name of the node."),
                    "domain": schema.text("JetStream domain of its leaf."),
                    "connected": {"type": "boolean", "description": "Whether the hub sees the leaf."},
                    "rtt": schema.text("Round trip between hub and leaf, as the hub measured it, for example 12ms."),
                },
                required=["name", "domain", "connected"],
            ),
        },
    }
)
