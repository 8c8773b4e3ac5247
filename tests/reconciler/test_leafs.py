"""What EdgeNetworks and Streams bring into a network: scopes, rights, grants of leafs, and the Service of leafs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.network import Limits, Network
from edgefarm.api.policy import Permissions, Policy
from edgefarm.api.stream import Stream
from edgefarm.nats.jetstream_rights import StoredSubjects
from reconciler.desired import leaf_service
from reconciler.desired.blueprint import Plan, Surroundings, plan_network
from reconciler.desired.conditions import policy_problems
from reconciler.desired.grants import Holder
from reconciler.desired.keys import KeyOrders, orders_of
from reconciler.desired.leafs import LeafEntry, effective_streams, plan_leafs, stored_subjects, usable_edges
from reconciler.desired.membership import Claims
from reconciler.desired.resources import FoundEdgeNetwork, selected_nodes
from reconciler.desired.rights import rights_of
from reconciler.desired.scopes import Scope, scopes_of
from tests.reconciler.objects import NOW, configuration, deleting, edge_network, network, policy, stream

ENTRY = LeafEntry(("tls://10.0.0.1:4222",), "PEM")


def plan(
    *,
    policies: list[dict[str, Any]] | None = None,
    edges: list[dict[str, Any]] | None = None,
    streams: list[dict[str, Any]] | None = None,
    leaf_urls: tuple[str, ...] = ("tls://hub:7422",),
    **spec: Any,
) -> Plan:
    base = configuration()
    nats = type(base.nats)(base.nats.urls, base.nats.client_urls, leaf_urls, None)
    around = Surroundings(
        policies=tuple(map(Policy.parse, policies or [])),
        template=None,
        same_name={},
        namespaces=frozenset({"factory"}),
        accounts=frozenset(),
        edges=tuple(map(FoundEdgeNetwork.read, edges or [])),
        streams=tuple(map(Stream.parse, streams or [])),
        entry=ENTRY,
    )
    return plan_network(Network.parse(network(**spec)), around, configuration(nats=nats), NOW)


def scopes(**parts: Any) -> dict[str, Scope]:
    return {scope.key: scope for scope in scopes_of(plan(**parts).blueprint)}


def named(name: str, **spec: Any) -> dict[str, Any]:
    """A Stream of this name in JetStream."""
    obj = stream(name.lower(), **spec)
    return {**obj, "spec": {**obj["spec"], "name": name}}


def test_a_network_always_has_our_own_key_and_one_per_policy_and_edge_network() -> None:
    assert list(scopes()) == ["controller.foo"]
    edges = [edge_network("plant"), edge_network("yard"), edge_network("other", network="bar")]
    found = scopes(policies=[policy("sensor")], edges=edges)
    assert list(found) == ["policy.foo.factory.sensor", "leaf.foo.plant", "leaf.foo.yard", "controller.foo"]
    assert found["leaf.foo.plant"].holders == (Holder("foo", "network", "leaf-plant", "plant"),)
    assert found["leaf.foo.plant"].template.connection_types == ("LEAFNODE",)
    assert found["controller.foo"].orders is None, "it never rotates"


@pytest.mark.parametrize("gone", [deleting(edge_network()), edge_network(limits={"filestorage": "lots"})])
def test_an_edge_network_that_goes_or_has_a_mistake_has_no_key(gone: dict[str, Any]) -> None:
    assert list(scopes(edges=[gone])) == ["controller.foo"]


def test_the_order_in_which_things_are_found_does_not_matter() -> None:
    edges = [edge_network("plant"), edge_network("yard")]
    streams = [named("A", subjects=["a.>"]), named("B", subjects=["b.>"])]
    forth = plan(edges=edges, streams=streams).blueprint
    assert plan(edges=edges[::-1], streams=streams[::-1]).blueprint == forth


def test_without_an_address_for_leafs_the_key_stays_and_nobody_holds_it() -> None:
    found = scopes(edges=[edge_network()], leaf_urls=())
    assert found["leaf.foo.plant"].holders == ()


def test_a_leaf_server_can_store_what_the_network_or_the_edge_network_may_whichever_is_more() -> None:
    limits = {"filestorage": "10M", "inmemorystorage": "5M"}
    (leafs,) = plan(edges=[edge_network(limits={"filestorage": "20M"})], limits=limits).blueprint.leafs
    assert leafs.storage == Limits(20_000_000, 5_000_000)


@pytest.mark.parametrize(
    ("streams", "stored"),
    [
        ([stream()], {"plant": ("sensor.>",), "yard": ("sensor.>",)}),
        ([stream(edgeNetwork="plant")], {"plant": ("sensor.>",), "yard": ()}),
        ([stream(location="main")], {"plant": (), "yard": ()}),
        (
            [stream(location="main"), stream("copy", subjects=[], link={"stream": "READINGS"})],
            {"plant": (), "yard": ()},
        ),
        (
            [stream(), named("YOUNGER", subjects=["sensor.x"])],
            {"plant": ("sensor.>",), "yard": ("sensor.>",)},
        ),
        ([stream(subjects=[">"])], {"plant": (), "yard": ()}),
        ([stream(edgeNetwork="nix")], {"plant": (), "yard": ()}),
    ],
)
def test_nodes_store_what_effective_edge_streams_say(
    streams: list[dict[str, Any]], stored: dict[str, tuple[str, ...]]
) -> None:
    found = [FoundEdgeNetwork.read(edge_network(name)) for name in ("plant", "yard")]
    parsed = Network.parse(network())
    in_effect = effective_streams(parsed, [Stream.parse(each) for each in streams], {each.name: each for each in found})
    leafs = plan_leafs(parsed, usable_edges(found), in_effect)
    assert {each.edge_network: each.stored for each in leafs} == stored


def test_a_linked_stream_holds_what_the_other_one_holds() -> None:
    streams = [
        named("EDGE"),
        named("ALL", location="main", subjects=[], link={"stream": "EDGE"}),
        named("BACK", subjects=[], link={"stream": "ALL"}),
        named("NIX", subjects=[], link={"stream": "MISSING"}),
        named("ONE", subjects=[], link={"stream": "TWO"}),
        named("TWO", location="main", subjects=[], link={"stream": "ONE"}),
    ]
    found = {each.stream: each.subjects for each in stored_subjects([Stream.parse(each) for each in streams])}
    assert found == dict.fromkeys(("ALL", "BACK", "EDGE"), ("sensor.>",))


STORED = (StoredSubjects("READINGS", ("sensor.>",)),)


def test_who_only_consumes_may_publish_the_requests_and_nothing_else() -> None:
    template = rights_of(Permissions(allow_subscribe=("sensor.a.>",)), STORED, "own").template
    assert template.pub_allow
    assert all(subject.startswith("$JS.") for subject in template.pub_allow)
    assert template.pub_deny == ()
    assert "_INBOX.>" in template.sub_allow


@pytest.mark.parametrize("streams", [(), (StoredSubjects("OTHER", ("other.>",)),)])
def test_without_a_stream_to_consume_an_empty_allowpub_allows_nothing(streams: tuple[StoredSubjects, ...]) -> None:
    template = rights_of(Permissions(allow_subscribe=("sensor.>",)), streams, "own").template
    assert (template.pub_allow, template.pub_deny) == ((), (">",))


def test_a_denial_wins_over_the_rights_that_follow_from_streams() -> None:
    template = rights_of(Permissions(allow_subscribe=("sensor.>",), deny_publish=(">",)), STORED, "own").template
    assert template.pub_deny == (">",)


def test_what_cannot_be_granted_is_told() -> None:
    rights = rights_of(Permissions(allow_subscribe=("sensor.*",)), STORED, "own")
    (condition,) = policy_problems(Claims(), "", rights)
    assert (condition.type, condition.reason) == ("StreamsGranted", "NotEnforceable")
    assert "READINGS: sensor.*" in condition.message


def test_the_service_account_of_leafs_is_nobody_elses() -> None:
    intruder = policy("leaf-plant", "network", serviceAccounts=["mine"])
    found = plan(policies=[intruder], edges=[edge_network()], namespaces=["factory", "network"])
    (claims,) = found.claims.values()
    assert (claims.granted, claims.reserved) == (("mine",), ("leaf-plant",))
    (condition,) = policy_problems(claims, "", rights_of(Permissions(), (), "own"))
    assert (condition.type, condition.reason) == ("ServiceAccounts", "ReservedForLeafs")


def test_orders_are_read_from_annotations_and_mistakes_only_disable_them() -> None:
    good = {names.ANNOTATION_ROTATE_KEYS_AT: NOW.isoformat(), names.ANNOTATION_REVOKE_KEYS_BEFORE: "soon"}
    orders, problem = orders_of(good)
    assert orders == KeyOrders(rotate_at=NOW)
    assert "revoke-keys-before" in problem
    assert orders_of({}) == (KeyOrders(), "")


def test_nodes_are_read_from_the_status() -> None:
    edge = edge_network() | {"status": {"nodes": [{"name": "a"}, {"name": "b"}]}}
    assert selected_nodes(edge) == {"a", "b"}
    assert selected_nodes(None) == selected_nodes(edge_network()) == frozenset()


def service(**spec: Any) -> dict[str, Any]:
    """The wanted Service as an API server would answer it."""
    wanted = leaf_service.wanted_service(network())
    defaults = {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "sessionAffinity": "None"}
    kept = {name: value for name, value in wanted["spec"].items() if value is not False}
    return {**wanted, "spec": {**kept, **defaults, **spec}}


def test_a_service_as_the_api_server_keeps_it_needs_no_mending() -> None:
    assert leaf_service.mending_patch(service(), leaf_service.wanted_service(network())) == {}


@pytest.mark.parametrize(
    ("change", "patch"),
    [
        ({"publishNotReadyAddresses": True}, {"publishNotReadyAddresses": False}),
        ({"internalTrafficPolicy": "Cluster"}, {"internalTrafficPolicy": "Local"}),
        (
            {"selector": {"app": "x"}},
            {"selector": {"app": None, names.LABEL_OF_NETWORK: "foo", names.LABEL_TYPE: "leaf"}},
        ),
    ],
)
def test_a_changed_service_is_mended(change: dict[str, Any], patch: dict[str, Any]) -> None:
    assert leaf_service.mending_patch(service(**change), leaf_service.wanted_service(network())) == {"spec": patch}


@pytest.mark.parametrize(
    ("found", "urls"),
    [
        (service(), ("tls://10.0.0.1:4222",)),
        (service(clusterIPs=["fd00::1", "10.0.0.1"]), ("tls://[fd00::1]:4222",)),
        (service(clusterIPs=None, clusterIP="10.0.0.2"), ("tls://10.0.0.2:4222",)),
        (service(clusterIPs=["None"], clusterIP="None"), ()),
        (service(clusterIPs=None, clusterIP=""), ()),
    ],
)
def test_pods_reach_the_service_by_its_address(found: dict[str, Any], urls: tuple[str, ...]) -> None:
    assert leaf_service.entry_urls(found) == urls


def test_ours_is_what_has_our_labels_or_our_owner() -> None:
    owner = network()
    assert leaf_service.is_ours(service(), owner)
    bare = {"metadata": {"ownerReferences": service()["metadata"]["ownerReferences"]}}
    assert leaf_service.is_ours(bare, owner)
    assert not leaf_service.is_ours({"metadata": {}}, owner)
    assert not leaf_service.is_ours(leaf_service.wanted_service(network("bar")), owner)


def test_certificates_outlast_a_node_that_is_away_for_months() -> None:
    settings = leaf_service.CERTIFICATES
    assert settings.server_lifetime / 3 > timedelta(days=120)
    assert settings.authority_lifetime / 3 > settings.server_lifetime + settings.spread
