"""Which nodes an EdgeNetwork gets, what its status says, and when: plain functions, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.api.network import Limits
from reconciler.desired import edge_conditions
from reconciler.desired.edge_network import NodeState, assign, decides_about_leafs, facts, observe, place_of, selects
from reconciler.desired.resources import FoundNetwork
from reconciler.desired.round_trip import has_moved, write_round_trip
from reconciler.ports import LeafOnHub, LeafView, Object
from reconciler.status import Condition
from tests.reconciler import objects
from tests.reconciler.objects import NOW

EDGE = {"role": "edge"}
NO_LIMITS = Limits()
#: The hub was asked, and no leaf is connected.
NOBODY = LeafView(asked=True)


def edge(name: str = "plant", *, older_by: int = 0, network: str = "foo", **spec: Any) -> EdgeNetwork:
    created = NOW - timedelta(seconds=older_by)
    return EdgeNetwork.parse(objects.edge_network(name, created=created, network=network, **spec))


def node(name: str = "n1", *taints: Mapping[str, str], **labels: str) -> Object:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"taints": list(taints)}}


def taint(key: str, value: str = "", effect: str = "NoSchedule") -> dict[str, str]:
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def leaf(node: str, rtt: float = 0.012, network: str = "foo") -> LeafOnHub:
    return LeafOnHub("A", names.leaf_domain(network, node), rtt, f"N.{node}", listening=True)


@pytest.mark.parametrize(
    ("spec", "labels", "taints", "selected"),
    [
        ({}, {}, [], True),
        ({"nodeSelector": EDGE}, EDGE, [], True),
        ({"nodeSelector": EDGE}, {"role": "cloud"}, [], False),
        ({"nodeSelector": EDGE}, {}, [], False),
        ({"nodeSelector": {"role": "edge", "site": "a"}}, {**EDGE, "site": "a", "more": "b"}, [], True),
        ({"nodeSelector": {"role": "edge", "site": "a"}}, EDGE, [], False),
        ({}, {}, [taint("dedicated")], False),
        ({}, {}, [taint("dedicated", effect="PreferNoSchedule")], True),
        ({}, {}, [taint("dedicated", effect="NoExecute")], False),
        ({"tolerations": [{"key": "dedicated", "operator": "Exists"}]}, {}, [taint("dedicated", "edge")], True),
        ({"tolerations": [{"key": "dedicated", "value": "edge"}]}, {}, [taint("dedicated", "edge")], True),
        ({"tolerations": [{"key": "dedicated", "value": "edge"}]}, {}, [taint("dedicated", "other")], False),
        (
            {"tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]},
            {},
            [taint("dedicated", effect="NoExecute")],
            False,
        ),
        ({"tolerations": [{"operator": "Exists"}]}, {}, [taint("a"), taint("b", effect="NoExecute")], True),
        # What the pods of every DaemonSet tolerate: a node that is away keeps its leaf.
        ({}, {}, [taint("node.kubernetes.io/unreachable", effect="NoExecute")], True),
        ({}, {}, [taint("node.kubernetes.io/unreachable")], True),
        (
            {},
            {},
            [taint("node.kubernetes.io/not-ready"), taint("node.kubernetes.io/not-ready", effect="NoExecute")],
            True,
        ),
        ({}, {}, [taint("node.kubernetes.io/out-of-service", effect="NoExecute")], False),
        ({}, {}, [taint("node.kubernetes.io/unschedulable")], True),
    ],
)
def test_nodes_are_selected_as_for_the_pods_of_a_daemon_set(
    spec: dict[str, Any], labels: dict[str, str], taints: list[dict[str, str]], selected: bool
) -> None:
    assert selects(edge(**spec), node("n1", *taints, **labels)) is selected


def test_a_leaf_that_is_there_stays_when_its_node_is_closed_to_new_pods() -> None:
    closed, cleared = node("n1", taint("dedicated")), node("n1", taint("dedicated", effect="NoExecute"))
    assert assign(edge(), [], [closed], {("plant", "n1")}).nodes == ("n1",)
    assert assign(edge(), [], [closed], {("other", "n1"), ("plant", "n2")}).nodes == ()
    assert assign(edge(), [], [cleared], {("plant", "n1")}).nodes == ()
    # Nor is it handed to a younger one that may start leafs there.
    older, younger = edge("older", older_by=1), edge("younger", tolerations=[{"operator": "Exists"}])
    assert assign(younger, [older], [closed], {("older", "n1")}).conflicts == {"n1": "older"}


@pytest.mark.parametrize(
    ("pod", "place"),
    [
        (None, None),
        ({"metadata": {"labels": {names.LABEL_EDGE_NETWORK: "plant"}}, "spec": {}}, None),
        ({"metadata": {"labels": {}}, "spec": {"nodeName": "n1"}}, None),
        ({"metadata": {"labels": {names.LABEL_EDGE_NETWORK: "plant"}}, "spec": {"nodeName": "n1"}}, ("plant", "n1")),
        (
            {
                "metadata": {"labels": {names.LABEL_EDGE_NETWORK: "plant"}, "deletionTimestamp": "now"},
                "spec": {"nodeName": "n1"},
            },
            None,
        ),
    ],
)
def test_a_leaf_is_where_its_pod_is_bound_to(pod: Object | None, place: tuple[str, str] | None) -> None:
    assert place_of(pod) == place


def test_of_two_edge_networks_of_a_network_the_older_keeps_a_node_and_the_younger_is_told() -> None:
    older, younger = edge("zinc", older_by=10), edge("acid", nodeSelector=EDGE)
    nodes = [node("n2"), node("n1", **EDGE)]
    assert assign(older, [older, younger], nodes).nodes == ("n1", "n2")
    assert assign(older, [older, younger], nodes).conflicts == {}
    assert assign(younger, [older, younger], nodes).nodes == ()
    assert assign(younger, [older, younger], nodes).conflicts == {"n1": "zinc"}


def test_of_equally_old_ones_the_first_by_name_keeps_a_node() -> None:
    first, second = edge("a"), edge("b")
    assert assign(first, [second, first], [node()]).nodes == ("n1",)
    assert assign(second, [second, first], [node()]).conflicts == {"n1": "a"}


def test_leafs_of_different_networks_share_a_node() -> None:
    other = edge("other", older_by=10, network="bar")
    assert assign(edge(), [other], [node()]).nodes == ("n1",)


def test_every_node_that_is_selected_has_exactly_one_holder_whatever_the_order() -> None:
    edges = [edge("a", nodeSelector=EDGE), edge("b", older_by=5), edge("c", older_by=9, nodeSelector={"site": "x"})]
    nodes = [node("n1", **EDGE), node("n2"), node("n3", site="x"), node("n4", site="x", **EDGE)]
    for rivals in (edges, edges[::-1]):
        held = [name for each in edges for name in assign(each, rivals, nodes).nodes]
        assert sorted(held) == ["n1", "n2", "n3", "n4"]


@pytest.mark.parametrize(
    ("old", "new", "decides"),
    [
        (None, node(), True),
        (node(), None, True),
        (node(), node(), False),
        (node(), node(role="edge"), True),
        (node(), node("n1", taint("a")), True),
        (node(), {**node(), "status": {"conditions": ["a heartbeat"]}}, False),
    ],
)
def test_only_what_may_bring_or_take_leafs_wakes_anybody(old: Object, new: Object, decides: bool) -> None:
    assert decides_about_leafs(old, new) is decides


def test_the_status_says_which_nodes_are_connected_and_how_far_away_they_are() -> None:
    states = observe("foo", ["n1", "n2.example"], [leaf("n2.example", 0.0123)], {})
    assert facts(states) == {
        "selected": 2,
        "connected": 1,
        "nodes": [
            {"name": "n1", "domain": "foo-n1", "connected": False},
            {"name": "n2.example", "domain": "foo-n2_example", "connected": True, "rtt": "12ms"},
        ],
    }


def test_nodes_with_the_longest_names_have_domains_of_their_own() -> None:
    long = [f"{'a.' * 126}{end}" for end in ("a", "b")]
    assert all(len(name) == 253 for name in long)
    first, second = observe("foo", long, [leaf(long[0])], {})
    assert (first.connected, second.connected) == (True, False)
    assert first.domain != second.domain
    assert max(len(first.domain), len(second.domain)) <= 128


def test_what_was_seen_stays_while_the_hub_does_not_tell() -> None:
    before = facts(observe("foo", ["n1", "n2"], [leaf("n1")], {}))
    assert facts(observe("foo", ["n1", "n2"], None, before)) == before


def test_what_was_seen_under_another_network_does_not_stay() -> None:
    before = facts(observe("foo", ["n1"], [leaf("n1")], {}))
    assert observe("bar", ["n1"], None, before) == (NodeState("n1", "bar-n1", connected=False),)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        (0, 0.001, True),
        (0.001, 0, False),
        (0.001, 0.004, False),  # a factor, but nothing that anybody feels
        (0.020, 0.039, False),
        (0.020, 0.041, True),
        (0.041, 0.020, True),
        (0.001, 0.0061, True),
    ],
)
def test_a_round_trip_moves_only_when_it_is_quite_another_one(old: float, new: float, moved: bool) -> None:
    assert has_moved(old, new) is moved


@pytest.mark.parametrize(
    ("seconds", "before", "written"),
    [
        (0.0001, "", "1ms"),
        (0.0123, "", "12ms"),
        (0.015, "12ms", "12ms"),
        (0.030, "12ms", "30ms"),
        (0, "12ms", "12ms"),
        (0, "", ""),
        (2.5, "a day", "2500ms"),
    ],
)
def test_the_written_round_trip_stays_until_it_has_moved(seconds: float, before: str, written: str) -> None:
    assert write_round_trip(seconds, before) == written


def test_1000_nodes_and_10_edge_networks_are_decided_with_one_look_at_each_pair() -> None:
    looks = 0

    class Labels(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            nonlocal looks
            looks += 1
            return super().get(key, default)

    nodes = [node(f"n{number}") for number in range(1000)]
    for number, each in enumerate(nodes):
        each["metadata"]["labels"] = Labels(site=str(number % 10))
    edges = [edge(f"e{number}", older_by=number, nodeSelector={"site": str(number)}) for number in range(10)]
    held = [name for each in edges for name in assign(each, edges, nodes).nodes]
    assert len(held) == len(set(held)) == 1000
    assert looks <= 10 * 1000 + 10 * 100 * 10
    leafs = [leaf(name) for name in held]
    assert all(state.connected for state in observe("foo", sorted(held), leafs, {}))


# -- conditions --------------------------------------------------------------------------------------------------------


def found_network(**spec: Any) -> FoundNetwork:
    return FoundNetwork.read(objects.network(**spec))


def conditions(
    network: FoundNetwork,
    limits: Limits = NO_LIMITS,
    nodes: Any = (),
    rivals: Any = (),
    view: LeafView = NOBODY,
) -> dict[str, Condition]:
    assignment = assign(edge(), rivals, nodes)
    states = observe("foo", assignment.nodes, view.leafs, {})
    connected = edge_conditions.nodes_connected(objects.edge_network(), states, view)
    return {each.type: each for each in edge_conditions.in_place(network, limits, states, assignment, connected)}


def test_a_node_that_is_away_is_named_and_no_reason_not_to_be_ready() -> None:
    view = LeafView((leaf("n1"),), asked=True)
    found = conditions(found_network(), nodes=[node("n1"), node("n2")], view=view)
    assert (found["Ready"].status, found["Ready"].message) == (
        "True",
        "the leafs' workload is in place; 1 of 2 nodes are connected",
    )
    assert (found["NodesConnected"].status, found["NodesConnected"].reason) == ("False", "NodesAway")
    assert "n2" in found["NodesConnected"].message
    assert "n1" not in found["NodesConnected"].message


def test_many_nodes_that_are_away_still_fit_into_a_sentence() -> None:
    found = conditions(found_network(), nodes=[node(f"n{number:03}") for number in range(500)])
    assert "n000, n001, n002, n003, n004 and 495 more" in found["NodesConnected"].message


def test_without_a_node_it_says_what_brings_one() -> None:
    found = conditions(found_network())
    assert found["Ready"].status == "True"
    assert "no node is selected" in found["Ready"].message
    assert found["NodesConnected"].reason == "NoNodes"


def test_a_hub_that_does_not_tell_makes_the_connections_unknown() -> None:
    view = LeafView(problem="No answer within 5 s from NATS server hub-0.", asked=True)
    found = conditions(found_network(), nodes=[node()], view=view)
    assert (found["NodesConnected"].status, found["NodesConnected"].reason) == ("Unknown", "NatsUnavailable")
    assert "hub-0" in found["NodesConnected"].message


def test_before_the_hub_was_asked_for_the_first_time_what_was_said_stays() -> None:
    said = {"type": "NodesConnected", "status": "True", "reason": "AllConnected", "message": "as it was"}
    obj = {**objects.edge_network(), "status": {"conditions": [said]}}
    kept = edge_conditions.nodes_connected(obj, observe("foo", ["n1"], [], {}), LeafView())
    assert (kept.status, kept.reason, kept.message) == ("True", "AllConnected", "as it was")
    states = observe("foo", ["n1"], None, {})
    assert edge_conditions.nodes_connected(objects.edge_network(), states, LeafView()).status == "Unknown"


@pytest.mark.parametrize(
    ("network", "edge", "status", "reason", "says"),
    [
        ({}, Limits(), "True", "NothingStored", "nothing can be stored"),
        ({}, Limits(file_storage=2**30), "False", "NoJetStream", "raise spec.limits.filestorage to 1Gi"),
        ({"filestorage": "1Gi"}, Limits(file_storage=2**30), "True", "Effective", "hold"),
        ({"filestorage": "1Gi"}, Limits(file_storage=1), "True", "Effective", "hold"),
        (
            {"filestorage": "1Gi"},
            Limits(file_storage=2**31),
            "False",
            "NetworkLimitHolds",
            "the network's filestorage of 1Gi holds here, too: raise spec.limits.filestorage to 2Gi in network 'foo'",
        ),
        (
            {"filestorage": "1Gi"},
            Limits(file_storage=2**30, memory_storage=1500),
            "False",
            "NetworkLimitHolds",
            "the network's inmemorystorage of 0 holds here, too: raise spec.limits.inmemorystorage to 1500",
        ),
    ],
)
def test_a_limit_beyond_the_networks_says_what_to_raise(
    network: dict[str, str], edge: Limits, status: str, reason: str, says: str
) -> None:
    found = conditions(found_network(limits=network), edge)["LimitsEffective"]
    assert (found.status, found.reason) == (status, reason)
    assert says in found.message


def test_a_network_with_a_mistake_is_named_and_its_limits_are_not_spoken_of() -> None:
    found = conditions(found_network(limits={"filestorage": "lots"}))
    assert (found["Ready"].status, found["Ready"].reason) == ("False", "NetworkInvalid")
    assert "spec.limits.filestorage" in found["NetworkFound"].message
    assert "LimitsEffective" not in found


def test_a_conflict_names_the_nodes_and_the_other_edge_network() -> None:
    found = conditions(found_network(), nodes=[node("n1"), node("n2")], rivals=[edge("older", older_by=1)])
    assert found["NodesConflict"].status == "True"
    assert "n1, n2 by 'older'" in found["NodesConflict"].message
    assert "older EdgeNetworks keep all nodes" in found["Ready"].message
    assert "NodesConflict" not in conditions(found_network(), nodes=[node("n1")])
