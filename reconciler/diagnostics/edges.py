"""Decides what is wrong with the leafs of a network's nodes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgefarm import names
from edgefarm.findings import Code, Finding, fine, unknown, warning, wrong
from reconciler.desired.resources import selected_nodes
from reconciler.diagnostics.conditions import limited
from reconciler.ports import LeafView, Object


@dataclass(frozen=True)
class LeafFacts:
    """`pods` are the leafs' pods, `view` is what the hub tells of leafs, `account` the network's account there."""

    network: str
    edge_networks: Sequence[Object]
    pods: Sequence[Object]
    view: LeafView
    account: str | None


def check_leafs(facts: LeafFacts, node: str | None = None) -> list[Finding]:
    """The leaf of each node that an EdgeNetwork selects; of one node only, where that is given."""
    nodes = frozenset().union(*map(selected_nodes, facts.edge_networks))
    looked_at = sorted(nodes if node is None else nodes & {node})
    running = {pod["spec"].get("nodeName") for pod in facts.pods if _is_ready(pod, facts.network)}
    absent = [_absent(facts.network, name) for name in looked_at if name not in running]
    if not looked_at:
        return []
    if not facts.view.known:
        message = facts.view.problem.rstrip(". ") or "the hub has not been asked yet"
        return [*limited(absent), unknown(Code.LEAF_NOT_CONNECTED, f"Network {facts.network}", message)]
    seen = {leaf.name for leaf in facts.view.leafs if leaf.account == facts.account}
    away = [
        _not_connected(facts.network, name)
        for name in looked_at
        if name in running and names.leaf_domain(facts.network, name) not in seen
    ]
    if absent or away:
        return [*limited(absent), *limited(away)]
    message = f"leafs that are ready and connected to the hub: {len(looked_at)} of {len(looked_at)}"
    return [fine(Code.LEAF_NOT_CONNECTED, f"Network {facts.network}", message)]


def _is_ready(pod: Object, network: str) -> bool:
    labels = pod["metadata"].get("labels") or {}
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return is_ready and labels.get(names.LABEL_OF_NETWORK) == network


def _absent(network: str, node: str) -> Finding:
    message = f"no leaf of network {network} is ready on it: its pods depend on the hub"
    advice = "see the pods of the EdgeNetwork's DaemonSet in the controller's namespace: `kubectl describe` tells why"
    return wrong(Code.LEAF_ABSENT, f"node {node}", message, advice)


def _not_connected(network: str, node: str) -> Finding:
    message = f"the leaf of network {network} is not connected to the hub: it keeps messages until the uplink is back"
    advice = "see whether the node has an uplink; if it has, the log of the leaf's container nats says what is refused"
    return warning(Code.LEAF_NOT_CONNECTED, f"node {node}", message, advice)
