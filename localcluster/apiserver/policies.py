"""Kinds that limit pods (disruption budgets, network policies, priorities): their defaults and what is refused."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from localcluster.apiserver.failures import Cause, forbidden
from localcluster.apiserver.resources import pods
from localcluster.apiserver.store import Store

Json = dict[str, Any]

_PRIORITY_CLASSES: Final = ("scheduling.k8s.io", "priorityclasses")
#: Above it are the priorities of the system.
_HIGHEST_PRIORITY: Final = 1_000_000_000
#: The classes that every cluster has.
SYSTEM_PRIORITIES: Final = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_PREEMPTION: Final = ("PreemptLowerPriority", "Never")
_DIRECTIONS: Final = ("Ingress", "Egress")


def admit_priority(pod: Json, store: Store) -> None:
    """Resolve the priority class of a new pod, as the Priority admission plugin does; 403 when it does not exist."""
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    chosen: Json = {}
    if name:
        found = store.get(_PRIORITY_CLASSES, "", name)
        if found is None:
            why = f"no PriorityClass with name {name} was found"
            raise forbidden(pods(), pod["metadata"].get("name") or pod["metadata"].get("generateName", ""), why)
        chosen = found.content
    else:
        classes = [stored.content for stored in store.select(_PRIORITY_CLASSES)]
        chosen = next((one for one in classes if one.get("globalDefault")), {})
        if chosen:
            spec["priorityClassName"] = chosen["metadata"]["name"]
    spec.setdefault("priority", chosen.get("value", 0))
    spec.setdefault("preemptionPolicy", chosen.get("preemptionPolicy", _PREEMPTION[0]))


def complete_budget(budget: Json) -> None:
    budget.setdefault("spec", {})
    counts = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
    budget.setdefault("status", dict.fromkeys(counts, 0))


def complete_priority_class(priority_class: Json) -> None:
    priority_class.setdefault("value", 0)
    priority_class.setdefault("preemptionPolicy", _PREEMPTION[0])


def complete_network_policy(policy: Json) -> None:
    spec = policy.setdefault("spec", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")


def budget_problems(budget: Json, _old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a PodDisruptionBudget."""
    spec = budget["spec"]
    causes = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        causes.append(Cause.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        if isinstance(value, int) and value < 0:
            causes.append(Cause.invalid(f"spec.{field}", value, "must be greater than or equal to 0"))
        if isinstance(value, str) and not value.removesuffix("%").isdecimal():
            hint = "a valid percent string must be a numeric string followed by an ending '%'"
            causes.append(Cause.invalid(f"spec.{field}", value, hint))
    return causes


def priority_class_problems(priority_class: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a PriorityClass."""
    name, value = priority_class["metadata"]["name"], priority_class["value"]
    causes = []
    if name.startswith("system-") and SYSTEM_PRIORITIES.get(name) != value:
        hint = "priority class names with 'system-' prefix are reserved for system use only"
        causes.append(Cause.forbidden("metadata.name", hint))
    if value > _HIGHEST_PRIORITY and not name.startswith("system-"):
        hint = f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}"
        causes.append(Cause.forbidden("value", hint))
    if priority_class["preemptionPolicy"] not in _PREEMPTION:
        causes.append(Cause.unsupported("preemptionPolicy", priority_class["preemptionPolicy"], _PREEMPTION))
    for field in ("value", "preemptionPolicy"):
        if old is not None and old[field] != priority_class[field]:
            causes.append(Cause.forbidden(field, "may not be changed in an update."))
    return causes


def network_policy_problems(policy: Json, _old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a NetworkPolicy."""
    spec = policy["spec"]
    types = spec["policyTypes"]
    causes = [Cause.unsupported("spec.policyTypes", kind, _DIRECTIONS) for kind in types if kind not in _DIRECTIONS]
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            where = f"spec.{direction}[{index}]"
            for at, peer in enumerate(rule.get(side) or ()):
                causes += _peer_problems(f"{where}.{side}[{at}]", peer)
            for at, port in enumerate(rule.get("ports") or ()):
                causes += _port_problems(f"{where}.ports[{at}]", port)
    return causes


def range_problems(service_cidr: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a ServiceCIDR."""
    cidrs = service_cidr.get("spec", {}).get("cidrs") or []
    if old is not None and cidrs != old["spec"]["cidrs"]:
        return [Cause.invalid("spec.cidrs", cidrs, "field is immutable")]
    if not cidrs:
        return [Cause.required("spec.cidrs", "at least one CIDR required")]
    return [problem for index, cidr in enumerate(cidrs) for problem in _cidr_problems(f"spec.cidrs[{index}]", cidr)]


def _peer_problems(path: str, peer: Json) -> list[Cause]:
    block = peer.get("ipBlock")
    if not block:
        given = peer.get("podSelector") is not None or peer.get("namespaceSelector") is not None
        return [] if given else [Cause.required(path, "must specify a peer")]
    if len(peer) > 1:
        hint = "may not specify both ipBlock and another peer"
        return [Cause.forbidden(path, hint)]
    return _cidr_problems(f"{path}.ipBlock.cidr", block.get("cidr", ""))


def _port_problems(path: str, port: Json) -> list[Cause]:
    number = port.get("port")
    if isinstance(number, int) and not 0 < number < 65536:
        return [Cause.invalid(f"{path}.port", number, "must be between 1 and 65535, inclusive")]
    end = port.get("endPort")
    if end is not None and not (isinstance(number, int) and number <= end):
        return [Cause.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")]
    return []


def _cidr_problems(path: str, cidr: str) -> list[Cause]:
    try:
        ipaddress.ip_network(cidr)
    except ValueError:
        hint = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
        return [Cause.invalid(path, cidr, hint)]
    return []
