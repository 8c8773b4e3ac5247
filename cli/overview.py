"""Decides how healthy our objects are, from what their statuses say: the document of `edgefarm status`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.output import Health
from reconciler.diagnostics.conditions import WAITING
from reconciler.ports import EDGE_DEVICE, EDGE_NETWORK, NETWORK, POLICY, STREAM, Kind, Object
from reconciler.status import find_condition

_READY: Final = "Ready"
#: Conditions that speak of trouble when they are true.
_TROUBLE_WHEN_TRUE: Final = frozenset({"NodesConflict"})
#: Reasons of `Ready=False` that are as somebody wants it.
_INTENDED: Final = frozenset({"Disabled"})


@dataclass(frozen=True)
class Item:
    """One object: how it is, why (for one that is not well: reason and sentence), and facts of its kind."""

    namespace: str
    name: str
    network: str
    health: Health
    ready: str
    reason: str
    message: str
    facts: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Its part of the JSON document."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            **({"network": self.network} if self.network else {}),
            "health": self.health.name.lower(),
            "ready": self.ready,
            "reason": self.reason,
            "message": self.message,
            **self.facts,
        }


@dataclass(frozen=True)
class Section:
    """All objects of one kind; `problem` says why they are not known or not there, `note` which ones were looked at, if
    not all."""

    key: str
    items: tuple[Item, ...] = ()
    problem: str = ""
    note: str = ""


@dataclass(frozen=True)
class Overview:
    """Everything, by kind."""

    sections: tuple[Section, ...]

    @property
    def healthy(self) -> bool:
        """Whether all is known and nothing is bad."""
        return not any(
            section.problem or any(item.health is Health.BAD for item in section.items) for section in self.sections
        )

    def document(self) -> dict[str, Any]:
        """The JSON document; docs/cli.md describes it."""
        return {
            "healthy": self.healthy,
            **{section.key: [item.document() for item in section.items] for section in self.sections},
            "problems": [section.problem for section in self.sections if section.problem],
            "notes": [section.note for section in self.sections if section.note],
        }


def item_of(obj: Object, facts: Mapping[str, Any]) -> Item:
    """How one object is."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    ready, health, reason, message = _judged(obj)
    named = (obj.get("spec") or {}).get("network")
    return Item(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        network=str(status.get("network") or (named if isinstance(named, str) else "")),
        health=health,
        ready=ready,
        reason=reason,
        message=message,
        facts=facts,
    )


def section_of(kind: Kind, objects: Iterable[Object], network: str | None, note: str = "") -> Section:
    """The objects of one kind, the worst first, of one network where one is named."""
    key, facts = SECTIONS[kind]
    items = [item_of(obj, facts(obj)) for obj in objects]
    if network is not None:
        items = [item for item in items if network == (item.name if kind is NETWORK else item.network)]
    problem = f"there is no network {network!r}" if kind is NETWORK and network is not None and not items else ""
    in_order = sorted(items, key=lambda item: (item.health, item.namespace, item.name))
    return Section(key, tuple(in_order), problem, note)


def _judged(obj: Object) -> tuple[str, Health, str, str]:
    """Ready's status, health, reason and message."""
    condition = find_condition(obj, _READY)
    if condition is None:
        message = "nobody has looked at it yet: see that the reconciler runs and leads"
        return "Unknown", Health.BAD, "NotReconciled", message
    ready, reason = str(condition.get("status")), str(condition.get("reason") or "")
    message = str(condition.get("message") or "")
    if ready != "True":
        health = Health.GOOD if reason in _INTENDED else Health.DOUBTFUL if reason in WAITING else Health.BAD
        return ready, health, reason, message
    if "deletionTimestamp" in obj["metadata"]:
        return ready, Health.DOUBTFUL, "Deleting", "it is being deleted"
    if (condition.get("observedGeneration") or 0) < (obj["metadata"].get("generation") or 0):
        return ready, Health.DOUBTFUL, "Changed", "its last change has not been looked at yet"
    trouble = next(filter(_is_trouble, _others(obj)), None)
    if trouble is not None:
        return ready, Health.DOUBTFUL, str(trouble.get("reason") or ""), str(trouble.get("message") or "")
    return ready, Health.GOOD, reason, message


def _others(obj: Object) -> Iterable[Mapping[str, Any]]:
    conditions: Sequence[Mapping[str, Any]] = (obj.get("status") or {}).get("conditions") or ()
    return (condition for condition in conditions if condition.get("type") != _READY)


def _is_trouble(condition: Mapping[str, Any]) -> bool:
    fine = "False" if condition.get("type") in _TROUBLE_WHEN_TRUE else "True"
    return condition.get("status") != fine


def _network_facts(obj: Object) -> dict[str, Any]:
    status = obj.get("status") or {}
    counts = {name: int(status.get(name) or 0) for name in ("policies", "grants", "edgeNodes", "streams")}
    return {"account": status.get("account"), **counts}


def _policy_facts(obj: Object) -> dict[str, Any]:
    return {"serviceAccounts": list((obj.get("status") or {}).get("serviceAccounts") or ())}


def _edge_network_facts(obj: Object) -> dict[str, Any]:
    return {"nodes": list((obj.get("status") or {}).get("nodes") or ())}


def _stream_facts(obj: Object) -> dict[str, Any]:
    spec = obj.get("spec") or {}
    return {
        "stream": spec.get("name"),
        "location": spec.get("location"),
        "locations": list((obj.get("status") or {}).get("locations") or ()),
    }


def _device_facts(obj: Object) -> dict[str, Any]:
    status = obj.get("status") or {}
    return {
        "role": status.get("role"),
        "node": status.get("node"),
        "agentConnected": bool(status.get("agentConnected")),
        "mesh": dict(status.get("mesh") or {}),
        "counts": dict(status.get("counts") or {}),
        "peers": list(status.get("peers") or ()),
    }


#: By kind: the member of the document, and how its facts are found.
SECTIONS: Final[Mapping[Kind, tuple[str, Callable[[Object], dict[str, Any]]]]] = {
    NETWORK: ("networks", _network_facts),
    POLICY: ("policies", _policy_facts),
    EDGE_NETWORK: ("edgeNetworks", _edge_network_facts),
    STREAM: ("streams", _stream_facts),
    EDGE_DEVICE: ("edgeDevices", _device_facts),
}
