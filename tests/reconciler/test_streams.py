"""Which Streams of a network can be, and in which domains: tables, and rules that hold for any set of Streams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import names
from edgefarm.api.network import Network
from edgefarm.api.stream import Stream
from edgefarm.nats.subjects import overlaps
from reconciler.desired.resources import FoundEdgeNetwork
from reconciler.desired.streams import MAIN, Place, StreamPlan, Surroundings, identity, leaf_places, plan_streams
from tests.reconciler.objects import NOW, network

MIB = 2**20


def stream(called: str = "readings", /, *, age: int = 0, namespace: str = "factory", **spec: Any) -> Stream:
    """A main stream with a name and subjects after the object's, `age` minutes old, unless `spec` says otherwise."""
    whole = {"name": called.upper(), "location": "main", **spec}
    if "link" in whole:
        whole["link"] = {"stream": whole["link"]}
    elif "subjects" not in whole:
        whole["subjects"] = [f"{called}.>"]
    metadata = {
        "name": called,
        "namespace": namespace,
        "uid": f"{namespace}-{called}",
        "creationTimestamp": (NOW - timedelta(minutes=age)).isoformat(),
    }
    return Stream.parse({"metadata": metadata, "spec": whole})


def edge_network(name: str, of: str = "foo", **spec: Any) -> FoundEdgeNetwork:
    spec.setdefault("limits", {"filestorage": "1Gi", "inmemorystorage": "1Gi"})
    metadata = {"name": name, "namespace": "network", "uid": name, "creationTimestamp": NOW.isoformat()}
    return FoundEdgeNetwork.read({"metadata": metadata, "spec": {"network": of, **spec}})


def leaf(node: str, edge: str = "plant") -> Place:
    return Place(names.leaf_domain("foo", node), node, edge)


def around(
    *streams: Stream,
    edges: Iterable[FoundEdgeNetwork] = (edge_network("plant"),),
    leafs: Iterable[Place] = (leaf("one"), leaf("two")),
    limits: Mapping[str, Any] | None = None,
) -> Surroundings:
    room = {"filestorage": "1Gi", "inmemorystorage": "1Gi"} if limits is None else limits
    return Surroundings(
        network=Network.parse(network(limits=room)),
        streams=streams,
        edges={edge.name: edge for edge in edges},
        leafs=tuple(leafs),
    )


def refusal(wanted: Stream, *others: Stream, **rest: Any) -> tuple[str, str]:
    """Reason and message for one of these Streams; empty when it is not refused."""
    plan = plan_streams(around(wanted, *others, **rest))[identity(wanted)]
    return (plan.refusal.reason, plan.refusal.message) if plan.refusal else ("", "")


def domains(plan: StreamPlan) -> list[str]:
    return [place.domain for place in plan.places]


def test_a_main_stream_is_in_the_hub_and_an_edge_stream_on_every_node() -> None:
    main, edge = stream("a"), stream("b", location="edge")
    plans = plan_streams(around(main, edge))
    assert plans[identity(main)] == StreamPlan(main, (MAIN,))
    assert domains(plans[identity(edge)]) == ["foo-one", "foo-two"]


def test_an_edge_stream_of_one_edge_network_is_on_its_nodes_only() -> None:
    edges = (edge_network("plant"), edge_network("office"))
    wanted = stream(location="edge", edgeNetwork="office")
    plans = plan_streams(around(wanted, edges=edges, leafs=(leaf("one"), leaf("two", "office"))))
    assert domains(plans[identity(wanted)]) == ["foo-two"]


def test_a_main_stream_collects_from_all_domains_of_its_link_and_an_edge_stream_copies_from_the_hub() -> None:
    edge, main = stream("edge", location="edge"), stream("main", link="EDGE")
    copy = stream("copy", location="edge", link="MAIN")
    plans = plan_streams(around(copy, main, edge))
    assert plans[identity(main)].sources == (leaf("one"), leaf("two"))
    assert plans[identity(copy)].sources == (MAIN,)
    assert all(plan.refusal is None for plan in plans.values())


@pytest.mark.parametrize("subject", ["$JS.API.>", "$SYS.x", "$KV.mine.>", "_INBOX.a", ">", "*.x", "*.>", "$x"])
def test_subjects_of_nats_itself_are_reserved(subject: str) -> None:
    assert refusal(stream(subjects=[subject]))[0] == "SubjectsReserved"


@pytest.mark.parametrize("subject", ["*", "sensor", "sensor.>", "sensor.*.x", "x.$y", "_inbox.>"])
def test_other_subjects_are_not(subject: str) -> None:
    assert refusal(stream(subjects=[subject])) == ("", "")


def test_subjects_that_overlap_within_one_stream_are_refused() -> None:
    reason, message = refusal(stream(subjects=["a.b", "a.*"]))
    assert reason == "SubjectsOverlap"
    assert "'a.b' overlaps with 'a.*' in the same Stream" in message


def test_of_two_streams_of_a_name_the_older_keeps_it() -> None:
    older, younger = stream("a", age=2, name="X"), stream("b", age=1, name="X")
    assert refusal(older, younger) == ("", "")
    assert refusal(younger, older) == (
        "DuplicateName",
        "the name 'X' belongs to the Stream factory/a, which is older: write another spec.name, also for a stream of "
        "the other location",
    )


def test_a_name_is_one_for_the_hub_and_the_nodes_because_acknowledgements_name_no_domain() -> None:
    edge, main = stream("a", age=2, location="edge", name="X"), stream("b", age=1, name="X", link="X")
    assert refusal(main, edge)[0] == "DuplicateName"


def test_of_overlapping_subjects_the_older_stream_keeps_its_own() -> None:
    older, younger = stream("a", age=2, subjects=["s.>"]), stream("b", age=1, subjects=["x", "s.*.t"])
    assert refusal(older, younger) == ("", "")
    reason, message = refusal(younger, older)
    assert reason == "SubjectsOverlap"
    assert "'s.*.t' overlaps with 's.>' of the Stream factory/a" in message


def test_of_equally_old_streams_the_first_by_namespace_and_name_is_the_older() -> None:
    first = stream("z", namespace="a", subjects=["s"], name="ONE")
    second = stream("a", namespace="b", subjects=["s"], name="TWO")
    assert refusal(first, second) == ("", "")
    assert refusal(second, first)[0] == "SubjectsOverlap"


def test_subjects_may_overlap_where_streams_never_meet() -> None:
    edges = (edge_network("plant"), edge_network("office"))
    one = stream("a", location="edge", edgeNetwork="plant", subjects=["s.>"])
    two = stream("b", location="edge", edgeNetwork="office", subjects=["s.>"])
    main = stream("c", subjects=["s.>"])
    leafs = (leaf("one"), leaf("two", "office"))
    plans = plan_streams(around(one, two, main, edges=edges, leafs=leafs))
    assert all(plan.refusal is None for plan in plans.values())
    everywhere = stream("d", location="edge", subjects=["s.t"])
    assert refusal(everywhere, one, two, edges=edges, leafs=leafs)[0] == "SubjectsOverlap"


def test_who_is_refused_holds_nothing_against_others() -> None:
    oldest = stream("a", age=3, subjects=["s"])
    refused = stream("b", age=2, subjects=["s", "t"])
    youngest = stream("c", age=1, subjects=["t"])
    assert refusal(refused, oldest, youngest)[0] == "SubjectsOverlap"
    assert refusal(youngest, oldest, refused) == ("", "")


def test_a_missing_link_takes_no_name_away_from_the_stream() -> None:
    waiting = stream("a", age=2, name="X", link="LATER")
    assert refusal(waiting)[0] == "LinkNotFound"
    assert refusal(stream("b", age=1, name="X"), waiting)[0] == "DuplicateName"


@pytest.mark.parametrize(
    ("wanted", "others", "reason"),
    [
        (stream("a", link="NONE"), [], "LinkNotFound"),
        (stream("a", location="edge", link="NONE"), [], "LinkNotFound"),
        (stream("a", link="B"), [stream("b")], "LinkSameLocation"),
        (stream("a", link="A"), [], "LinkSameLocation"),
        (stream("a", location="edge", link="B"), [stream("b", link="A")], "LinkCycle"),
        (stream("b", link="A"), [stream("a", location="edge", link="B")], "LinkCycle"),
        (stream("c", location="edge", link="B"), [stream("b", link="A"), stream("a", location="edge", link="B")], ""),
    ],
)
def test_links(wanted: Stream, others: list[Stream], reason: str) -> None:
    assert refusal(wanted, *others)[0] == reason


def test_an_edge_network_that_is_named_must_be_there_and_of_the_network() -> None:
    wanted = stream(location="edge", edgeNetwork="office")
    assert refusal(wanted)[0] == "EdgeNetworkNotFound"
    assert refusal(wanted, edges=[edge_network("office", of="bar")])[0] == "EdgeNetworkOfOtherNetwork"


def test_without_nodes_there_is_nowhere_to_be() -> None:
    edge = stream("edge", location="edge")
    assert refusal(edge, leafs=())[0] == "NoEdgeNodes"
    assert refusal(stream("main", link="EDGE"), edge, leafs=())[0] == "NoEdgeNodes"


def test_storage_that_neither_network_nor_edge_network_has_is_named() -> None:
    assert refusal(stream(config={"storage": "memory"}), limits={"filestorage": "1Gi"}) == (
        "LimitsMissing",
        "Network 'foo' may not store anything of kind memory: set spec.limits.inmemorystorage there or use another "
        "spec.config.storage",
    )
    reason, message = refusal(stream(location="edge"), edges=[edge_network("plant", limits={})])
    assert reason == "LimitsMissing"
    assert "EdgeNetwork 'plant' may not store anything of kind file" in message


def test_below_a_smaller_limit_of_an_edge_network_streams_share_it_and_older_ones_first() -> None:
    small = [edge_network("plant", limits={"filestorage": "10Mi"})]
    assert refusal(stream(location="edge"), edges=small)[0] == "MaxBytesRequired"
    assert refusal(stream("main"), edges=small) == ("", "")
    oldest = stream("a", age=3, location="edge", config={"maxBytes": "6Mi"})
    middle = stream("b", age=2, location="edge", config={"maxBytes": "5Mi"})
    youngest = stream("c", age=1, location="edge", config={"maxBytes": "4Mi"})
    reason, message = refusal(middle, oldest, youngest, edges=small)
    assert reason == "LimitExceeded"
    assert f"older Streams leave {4 * MIB}" in message
    assert refusal(oldest, middle, youngest, edges=small) == ("", "")
    assert refusal(youngest, oldest, middle, edges=small) == ("", "")


def test_domains_are_where_leaf_pods_run_and_where_edge_networks_have_nodes() -> None:
    labels = {names.LABEL_EDGE_NETWORK: "plant"}
    pods: list[dict[str, Any]] = [
        {"metadata": {"name": "a", "labels": labels}, "spec": {"nodeName": "one"}},
        {"metadata": {"name": "b", "labels": labels}, "spec": {}},
    ]
    between = {
        "metadata": {"name": "office", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"nodes": [{"name": "one", "domain": "foo-one"}, {"name": "t.w.o", "domain": "foo-t_w_o"}]},
    }
    going = {
        "metadata": {"name": "old", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"nodes": [{"name": "three", "domain": "foo-three"}]},
    }
    assert leaf_places("foo", pods, [between, going]) == [
        Place("foo-one", "one", "plant"),
        Place("foo-t_w_o", "t.w.o", "office"),
    ]


TOKENS = st.sampled_from(["a", "b", "*"])
SUBJECTS = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(TOKENS, min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)
SPECS = st.fixed_dictionaries(
    {
        "age": st.integers(0, 3),
        "name": st.sampled_from("XYZ"),
        "location": st.sampled_from(["main", "edge"]),
        "subjects": st.lists(SUBJECTS, min_size=1, max_size=3, unique=True),
    },
    optional={"edge": st.sampled_from(["plant", "office"]), "link": st.sampled_from("XYZ")},
)


def built(number: int, spec: dict[str, Any]) -> Stream:
    spec = dict(spec)
    edge, link = spec.pop("edge", None), spec.pop("link", None)
    if link is not None:
        spec = {**spec, "link": link}
        del spec["subjects"]
    if edge is not None and spec["location"] == "edge":
        spec["edgeNetwork"] = edge
    name, age = spec.pop("name"), spec.pop("age")
    return stream(f"s{number}", age=age, **{"name": name, **spec})


EDGES = (edge_network("plant"), edge_network("office"))
LEAFS = (leaf("one"), leaf("two", "office"))


@given(st.lists(SPECS, max_size=7), st.randoms(use_true_random=False))
def test_accepted_streams_never_share_a_name_or_subjects_in_a_domain_and_order_does_not_matter(
    specs: list[dict[str, Any]], chance: Any
) -> None:
    streams = [built(number, spec) for number, spec in enumerate(specs)]
    plans = plan_streams(around(*streams, edges=EDGES, leafs=LEAFS))
    shuffled = list(streams)
    chance.shuffle(shuffled)
    assert plan_streams(around(*shuffled, edges=EDGES, leafs=LEAFS)) == plans
    accepted = [plan for plan in plans.values() if plan.refusal is None]
    for one, other in itertools.combinations(accepted, 2):
        if set(one.places) & set(other.places):
            assert one.stream.name != other.stream.name
            assert not any(overlaps(a, b) for a in one.stream.subjects for b in other.stream.subjects)


@given(st.lists(SPECS, max_size=7))
def test_a_younger_stream_never_changes_what_becomes_of_older_ones_but_for_their_links(
    specs: list[dict[str, Any]],
) -> None:
    streams = [built(number, {**spec, "age": 0}) for number, spec in enumerate(specs)]
    unlinked = [each for each in streams if each.link is None]
    plans = plan_streams(around(*unlinked, edges=EDGES, leafs=LEAFS))
    for count in range(len(unlinked)):
        fewer = plan_streams(around(*unlinked[:count], edges=EDGES, leafs=LEAFS))
        assert fewer == {key: plans[key] for key in fewer}
