"""A node as the command line describes it (name, labels, taints), and the annotations that its runner obeys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

#: On a Node: the value `cut` cuts its pods off from all uplinks; without the annotation they are connected.
UPLINK_ANNOTATION: Final = "localcluster.edgefarm.io/uplink"
#: On a Node: every new value is a power cut, after which the node starts again at once.
REBOOT_ANNOTATION: Final = "localcluster.edgefarm.io/reboot"

_TAINT: Final = "taint:"
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")


@dataclass(frozen=True)
class Taint:
    """A taint of a node; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}"


@dataclass(frozen=True)
class NodeSpec:
    """A node to be made: its name, and the labels and taints it starts with."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """`name[,label=value…][,taint:key=value:effect…]`; raises ValueError with what to write instead."""
        name, *parts = text.split(",")
        labels = [part.partition("=") for part in parts if not part.startswith(_TAINT)]
        if not name or "=" in name or not all(separator for _, separator, _ in labels):
            raise ValueError(f"{text!r}: write a node as name,label=value,taint:key=value:NoSchedule")
        taints = tuple(_taint(part.removeprefix(_TAINT)) for part in parts if part.startswith(_TAINT))
        return cls(name, {key: value for key, _, value in labels}, taints)

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.labels.items()]
        return ",".join([self.name, *parts, *(f"{_TAINT}{taint}" for taint in self.taints)])


def default_nodes(count: int) -> list[NodeSpec]:
    """`node-1`, `node-2`, … without labels and taints of their own."""
    return [NodeSpec(f"node-{number}") for number in range(1, count + 1)]


def _taint(text: str) -> Taint:
    what, _, effect = text.rpartition(":")
    key, _, value = what.partition("=")
    if not key or effect not in _EFFECTS:
        raise ValueError(f"{text!r}: write a taint as key=value:effect, where effect is one of {', '.join(_EFFECTS)}")
    return Taint(key, value, effect)
