"""Turns what is known about an EdgeNetwork into conditions: reasons for programs, sentences for humans."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from edgefarm import names
from edgefarm.api.network import Limits
from edgefarm.errors import EdgefarmError
from reconciler.desired.conditions import READY, failure_reason
from reconciler.desired.edge_network import Assignment, NodeState
from reconciler.desired.resources import FoundNetwork
from reconciler.ports import LeafView
from reconciler.status import Condition, find_condition

NETWORK_FOUND: Final = "NetworkFound"
NODES_CONNECTED: Final = "NodesConnected"
LIMITS_EFFECTIVE: Final = "LimitsEffective"
NODES_CONFLICT: Final = "NodesConflict"
#: Names that fit into one sentence.
_MOST_NAMES: Final = 5


def waiting() -> Condition:
    """The reconciler has no configuration."""
    return _not_ready("WaitingForConfiguration", f"the ConfigMap {names.CONFIGMAP!r} is missing or has mistakes")


def invalid(problem: str) -> Condition:
    """The spec cannot be used."""
    return _not_ready("InvalidSpec", f"{problem}; what was there before stays in place")


def no_leaf_urls() -> Condition:
    """The hub does not take leafs."""
    return _not_ready(
        "NoLeafUrls",
        "nobody has said where leafs reach the hub: the administrator must write nats.leafUrls to the ConfigMap "
        f"{names.CONFIGMAP!r}; what was there before stays in place",
    )


def name_taken(kind: str, name: str) -> Condition:
    """An object that is not ours has the name of one that we must make."""
    return _not_ready(
        "NameTaken",
        f"there is a {kind} {name!r} that was not made for this EdgeNetwork, and it is left alone: delete or rename it",
    )


def failure(error: EdgefarmError) -> Condition:
    """A pass could not be completed."""
    return _not_ready(failure_reason(error), f"{str(error).rstrip('. ')}; it is tried again")


def network_missing(network: str) -> list[Condition]:
    """There is no such Network."""
    message = f"there is no network {network!r}: create it or correct spec.network"
    return [_not_ready("NetworkNotFound", message), Condition(NETWORK_FOUND, "False", "NetworkNotFound", message)]


def network_deleting(network: str) -> list[Condition]:
    """The Network is on its way out; its leafs run until it has gone."""
    message = f"network {network!r} is being deleted, and its leafs end with it"
    return [_not_ready("NetworkDeleting", message), Condition(NETWORK_FOUND, "False", "NetworkDeleting", message)]


def in_place(
    network: FoundNetwork, limits: Limits, states: Sequence[NodeState], assignment: Assignment, connected: Condition
) -> list[Condition]:
    """Everything that Kubernetes must know for the leafs to run is there.

    A node that is away is daily life at the edge and no reason not to be ready.
    """
    problem = [] if network.network is not None else [_network_invalid(network)]
    found = problem or [Condition(NETWORK_FOUND, "True", "Found", f"the leafs belong to network {network.name!r}")]
    if problem:
        ready = _not_ready("NetworkInvalid", problem[0].message)
    else:
        ready = Condition(READY, "True", "Reconciled", _running(states, assignment))
    return [ready, *found, connected, *_limits(network, limits), *_conflicts(assignment.conflicts)]


def nodes_connected(obj: Mapping[str, Any], states: Sequence[NodeState], view: LeafView) -> Condition:
    """Whether the hub sees all leafs; while it has never been asked, what was said earlier stays."""
    if not states:
        return Condition(NODES_CONNECTED, "True", "NoNodes", "no node is selected")
    before = find_condition(obj, NODES_CONNECTED)
    if not view.asked:
        if before is None:
            return Condition(NODES_CONNECTED, "Unknown", "NotAsked", "the hub has not been asked yet")
        return Condition(NODES_CONNECTED, before["status"], before["reason"], before["message"])
    if not view.known:
        return Condition(
            NODES_CONNECTED, "Unknown", "NatsUnavailable", f"what follows is older, because {view.problem.rstrip('. ')}"
        )
    away = [state.name for state in states if not state.connected]
    if not away:
        return Condition(NODES_CONNECTED, "True", "AllConnected", "the leafs of all nodes are connected to the hub")
    return Condition(
        NODES_CONNECTED,
        "False",
        "NodesAway",
        f"no leaf of {_some(away)} is connected to the hub: what these nodes store is passed on when they return",
    )


def _running(states: Sequence[NodeState], assignment: Assignment) -> str:
    if not states and assignment.conflicts:
        return "there are no leafs here: older EdgeNetworks keep all nodes that spec.nodeSelector selects"
    if not states:
        return "no node is selected: leafs come with the first node that has the labels of spec.nodeSelector"
    connected = sum(state.connected for state in states)
    return f"the leafs' workload is in place; {connected} of {len(states)} nodes are connected"


def _network_invalid(network: FoundNetwork) -> Condition:
    return Condition(
        NETWORK_FOUND, "False", "NetworkInvalid", f"network {network.name!r} has a mistake: {network.problem}"
    )


def _limits(network: FoundNetwork, edge: Limits) -> list[Condition]:
    """NATS has one limit for an account on all servers: that of the Network."""
    if network.network is None:
        return []
    whole = network.network.limits
    pairs = (
        ("filestorage", edge.file_storage, whole.file_storage),
        ("inmemorystorage", edge.memory_storage, whole.memory_storage),
    )
    beyond = [(name, wanted, most) for name, wanted, most in pairs if wanted > most]
    if not beyond:
        if whole == Limits():
            message = f"network {network.name!r} has no limits, so nothing can be stored, neither here nor in the hub"
            return [Condition(LIMITS_EFFECTIVE, "True", "NothingStored", message)]
        return [Condition(LIMITS_EFFECTIVE, "True", "Effective", "the limits hold on each node")]
    if whole == Limits():
        reason = "NoJetStream"
        holds = f"network {network.name!r} has no limits, so its leafs store nothing"
    else:
        reason = "NetworkLimitHolds"
        holds = "; ".join(f"the network's {name} of {_size(most)} holds here, too" for name, _, most in beyond)
    needed = " and ".join(f"spec.limits.{name} to {_size(wanted)}" for name, wanted, _ in beyond)
    message = f"{holds}: raise {needed} in network {network.name!r}, or lower it here"
    return [Condition(LIMITS_EFFECTIVE, "False", reason, message)]


def _conflicts(conflicts: Mapping[str, str]) -> list[Condition]:
    if not conflicts:
        return []
    holders = sorted(set(conflicts.values()))
    parts = [f"{_some([node for node, holder in conflicts.items() if holder == each])} by {each!r}" for each in holders]
    return [
        Condition(
            NODES_CONFLICT,
            "True",
            "SelectedTwice",
            f"selected already: {'; '.join(parts)}; the older EdgeNetwork keeps a node: let the selectors exclude each "
            "other",
        )
    ]


def _some(nodes: Iterable[str]) -> str:
    found = list(nodes)
    more = len(found) - _MOST_NAMES
    shown = ", ".join(found[:_MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _size(size: int) -> str:
    """Bytes in the largest unit that shows them exactly."""
    for unit, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _not_ready(reason: str, message: str) -> Condition:
    return Condition(READY, "False", reason, message)
