"""Decides on which nodes an EdgeNetwork has leafs, and what its status says about them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork, Toleration
from reconciler.desired.round_trip import write_round_trip
from reconciler.ports import LeafOnHub, Object

#: Taints that take no node away: the pods of every DaemonSet tolerate them, or they only say that the node is not well
#: now, and keep pods off that are not there yet.
#: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations
_OF_DAEMON_SETS: Final = tuple(
    Toleration(f"node.kubernetes.io/{condition}", "Exists")
    for condition in (
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "network-unavailable",
        "unschedulable",
    )
)

#: An EdgeNetwork and a node that has a leaf of it.
Place = tuple[str, str]


@dataclass(frozen=True)
class Assignment:
    """The nodes of one EdgeNetwork in the order of their names, and those that an older EdgeNetwork of the same network
    keeps (node to its name)."""

    nodes: tuple[str, ...] = ()
    conflicts: Mapping[str, str] = field(default_factory=dict)


def assign(
    edge: EdgeNetwork, rivals: Iterable[EdgeNetwork], nodes: Iterable[Object], places: Collection[Place] = ()
) -> Assignment:
    """Which nodes the EdgeNetwork gets; `places` are where leafs are already.

    A node has one leaf of a network. Where several EdgeNetworks of one network select it, the oldest has it; of equally
    old ones the first by name. `rivals` may hold those of other networks, which are none, and `edge` itself.
    """
    elders = sorted((r for r in rivals if r.network == edge.network and _age(r) < _age(edge)), key=_age)
    mine, conflicts = [], {}
    for node in nodes:
        name = node["metadata"]["name"]
        if selects(edge, node, there=(edge.name, name) in places):
            holder = next((e.name for e in elders if selects(e, node, there=(e.name, name) in places)), None)
            if holder is None:
                mine.append(name)
            else:
                conflicts[name] = holder
    return Assignment(tuple(sorted(mine)), dict(sorted(conflicts.items())))


def selects(edge: EdgeNetwork, node: Object, *, there: bool = False) -> bool:
    """Whether a leaf of the EdgeNetwork may run on the node, by its labels and taints; one that is already `there`
    stays when the node is closed to new pods."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in edge.node_selector.items()):
        return False
    forbidding = ("NoExecute",) if there else ("NoExecute", "NoSchedule")
    tolerations = (*edge.tolerations, *_OF_DAEMON_SETS)
    return all(
        any(each.tolerates(taint) for each in tolerations)
        for taint in (node.get("spec") or {}).get("taints") or ()
        if taint.get("effect") in forbidding
    )


def place_of(pod: Object | None) -> Place | None:
    """Where a leaf's pod is; None when it is nowhere yet, or on its way out."""
    if pod is None or "deletionTimestamp" in pod["metadata"]:
        return None
    edge, node = pod["metadata"]["labels"].get(names.LABEL_EDGE_NETWORK), (pod.get("spec") or {}).get("nodeName")
    return (edge, node) if edge and node else None


def decides_about_leafs(old: Object | None, new: Object | None) -> bool:
    """Whether the change of a node may bring or take leafs; its heartbeats do not."""
    if old is None or new is None:
        return old is not new
    return _decisive(old) != _decisive(new)


@dataclass(frozen=True)
class NodeState:
    """What was observed of the leaf on one node. `round_trip` is text as in the status; empty: not measured."""

    name: str
    domain: str
    connected: bool
    round_trip: str = ""

    def raw(self) -> Object:
        """As it stands in the status."""
        state: Object = {"name": self.name, "domain": self.domain, "connected": self.connected}
        return state | ({"rtt": self.round_trip} if self.round_trip else {})


def observe(
    network: str, nodes: Iterable[str], leafs: Sequence[LeafOnHub] | None, before: Mapping[str, Any]
) -> tuple[NodeState, ...]:
    """The state of each node. `leafs` are the connections of the network's account at the hub (None: not known, then
    what `before`, the present status, says stays); the leaf of a node is the one that is called like its domain."""
    old = {entry["name"]: entry for entry in before.get("nodes") or ()}
    seen = {leaf.name: leaf for leaf in leafs or ()}
    states = []
    for name in nodes:
        domain, entry = names.leaf_domain(network, name), old.get(name) or {}
        if entry.get("domain") != domain:
            entry = {}
        leaf, written = seen.get(domain), entry.get("rtt") or ""
        if leafs is None:
            states.append(NodeState(name, domain, bool(entry.get("connected")), written))
        elif leaf is None:
            states.append(NodeState(name, domain, connected=False))
        else:
            states.append(NodeState(name, domain, connected=True, round_trip=write_round_trip(leaf.rtt, written)))
    return tuple(states)


def facts(states: Sequence[NodeState]) -> Object:
    """The status of an EdgeNetwork but for its conditions."""
    return {
        "selected": len(states),
        "connected": sum(state.connected for state in states),
        "nodes": [state.raw() for state in states],
    }


def _age(edge: EdgeNetwork) -> tuple[Any, str]:
    return edge.meta.created, edge.name


def _decisive(node: Object) -> tuple[Any, Any]:
    return node["metadata"].get("labels"), (node.get("spec") or {}).get("taints")
