"""Which nodes a pod may run on: labels, required node affinity and taints. Plain functions of raw objects."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from localcluster.client import Json
from localcluster.workloads.pods import condition, matches_labels

_HEARTBEAT_LIMIT_SECONDS: Final = 40
_DAEMON_TOLERATIONS: Final = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": effect}
    for taint, effect in (
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    )
]
_HOST_NETWORK_TOLERATIONS: Final = [
    {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists", "effect": "NoSchedule"}
]


def misfit(spec: Json, node: Json) -> str:
    """Why a pod with this spec cannot be placed on the node; empty when it can. It need not be ready."""
    if not _is_selected(spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in _untolerated(spec, node):
        if taint["effect"] != "PreferNoSchedule":
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    return ""


def may_stay(spec: Json, node: Json) -> bool:
    """Whether a DaemonSet leaves its pod on the node where it runs: a taint drives it away by NoExecute only."""
    return _is_selected(spec, node) and all(taint["effect"] != "NoExecute" for taint in _untolerated(spec, node))


def daemon_tolerations(spec: Json) -> list[Json]:
    """The tolerations of a DaemonSet's pods: those of the template and what Kubernetes adds to them."""
    added = [*_DAEMON_TOLERATIONS, *(_HOST_NETWORK_TOLERATIONS if spec.get("hostNetwork") else [])]
    return [*(spec.get("tolerations") or []), *added]


def is_node_ready(node: Json, now: datetime) -> bool:
    """Whether the node says that it is ready, and has said so lately (a killed runner cannot take it back)."""
    ready = condition(node, "Ready")
    heartbeat = ready.get("lastHeartbeatTime")
    if ready.get("status") != "True" or not heartbeat:
        return False
    return (now - datetime.fromisoformat(heartbeat)).total_seconds() < _HEARTBEAT_LIMIT_SECONDS


def _is_selected(spec: Json, node: Json) -> bool:
    labels = node["metadata"].get("labels") or {}
    return matches_labels(spec.get("nodeSelector") or {}, labels) and _matches_affinity(spec, node)


def _untolerated(spec: Json, node: Json) -> list[Json]:
    return [taint for taint in _taints(node) if not _tolerates(spec.get("tolerations") or [], taint)]


def _taints(node: Json) -> list[Json]:
    taints = list(node.get("spec", {}).get("taints") or [])
    if node.get("spec", {}).get("unschedulable"):
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    return taints


def _tolerates(tolerations: list[Json], taint: Json) -> bool:
    for entry in tolerations:
        if entry.get("effect") and entry["effect"] != taint["effect"]:
            continue
        if entry.get("operator") == "Exists":
            if entry.get("key") in (None, "", taint["key"]):
                return True
        elif entry.get("key") == taint["key"] and entry.get("value", "") == taint.get("value", ""):
            return True
    return False


def _matches_affinity(spec: Json, node: Json) -> bool:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    labels = node["metadata"].get("labels") or {}
    fields = {"metadata.name": node["metadata"]["name"]}
    return any(
        all(_matches(entry, labels) for entry in term.get("matchExpressions") or [])
        and all(_matches(entry, fields) for entry in term.get("matchFields") or [])
        for term in required["nodeSelectorTerms"]
    )


def _matches(requirement: Json, values: dict[str, str]) -> bool:
    value, wanted = values.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(wanted[0])
        case _:
            return value is not None and int(value) < int(wanted[0])
