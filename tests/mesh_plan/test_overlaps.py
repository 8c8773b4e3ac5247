"""Networks of devices: none that the mesh, the cluster, an older device or the host itself has."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_interface

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefarm.addresses import Network, overlap
from reconciler.desired.mesh.overlaps import (
    Granted,
    Ground,
    Territory,
    Wanted,
    own_network_refusal,
    pod_networks,
)
from tests.mesh_plan.kit import PODS, SERVICES, age, networks

GROUND = Ground(networks("10.201.0.0/16", "fd00:201::/64"), PODS, SERVICES)


def wanted(number: int, pods: tuple[Network, ...] = (), extra: tuple[Network, ...] = ()) -> Wanted:
    return Wanted(f"edge-{number}", age(number), pods, extra)


def reasons(granted: Granted) -> list[str]:
    return [refusal.reason for refusal in granted.refusals]


def test_networks_that_nobody_has_are_granted() -> None:
    granted = Territory(GROUND).claim(wanted(1, networks("10.42.1.0/24", "fd00:42:1::/64"), networks("192.168.7.0/24")))
    assert granted == Granted(networks("10.42.1.0/24", "fd00:42:1::/64"), networks("192.168.7.0/24"))


@pytest.mark.parametrize(
    ("pods", "extra", "sentence"),
    [
        ("10.201.7.0/24", "", "10.201.7.0/24 overlaps the mesh's block 10.201.0.0/16: use another network"),
        ("fd00:201::/48", "", "fd00:201::/48 overlaps the mesh's block fd00:201::/64: use another network"),
        ("10.43.7.0/24", "", "10.43.7.0/24 overlaps the services' network 10.43.0.0/16: use another network"),
        ("10.42.0.0/15", "", "10.42.0.0/15 overlaps the services' network 10.43.0.0/16: use another network"),
        ("10.40.0.0/14", "", "overlaps"),
        ("", "10.42.7.0/24", "10.42.7.0/24 overlaps the pods' network 10.42.0.0/16: use another network"),
        ("", "10.0.0.0/8", "10.0.0.0/8 overlaps the mesh's block 10.201.0.0/16: use another network"),
        ("10.42.7.0/24", "10.42.7.128/25", "10.42.7.128/25 overlaps the pods' network"),
        ("10.9.0.0/24", "10.9.0.0/25", "10.9.0.0/25 overlaps another network of the device: name it once"),
    ],
)
def test_what_the_mesh_or_the_cluster_has_is_refused(pods: str, extra: str, sentence: str) -> None:
    granted = Territory(GROUND).claim(wanted(1, networks(pods) if pods else (), networks(extra) if extra else ()))
    assert [sentence in refusal.message for refusal in granted.refusals] == [True]


def test_a_refused_network_does_not_cost_a_device_the_others() -> None:
    granted = Territory(GROUND).claim(wanted(1, networks("10.42.1.0/24"), networks("10.43.0.0/24", "192.168.7.0/24")))
    assert (granted.pod_cidrs, granted.extra_cidrs) == (networks("10.42.1.0/24"), networks("192.168.7.0/24"))
    assert reasons(granted) == ["NetworkOverlaps"]


def test_the_older_device_keeps_a_network() -> None:
    territory = Territory(GROUND)
    territory.claim(wanted(1, extra=networks("192.168.7.0/24")))
    granted = territory.claim(wanted(2, extra=networks("192.168.0.0/16", "192.0.2.0/24")))
    assert granted.extra_cidrs == networks("192.0.2.0/24")
    assert [each.message for each in granted.refusals] == [
        "192.168.0.0/16 overlaps a network of edge-1, which is older: use another network"
    ]
    assert granted.losers == ()


def test_the_older_device_gets_a_network_that_younger_ones_have() -> None:
    territory = Territory(GROUND)
    territory.claim(wanted(2, extra=networks("192.168.2.0/24", "192.0.2.0/24")))
    territory.claim(wanted(3, extra=networks("192.168.3.0/24")))
    granted = territory.claim(wanted(1, extra=networks("192.168.0.0/16")))
    assert granted == Granted((), networks("192.168.0.0/16"), (), ("edge-2", "edge-3"))
    assert reasons(territory.claim(wanted(3, extra=networks("192.168.3.0/24")))) == ["NetworkTaken"]
    territory.release("edge-1")
    assert territory.claim(wanted(3, extra=networks("192.168.3.0/24"))).refusals == ()
    assert territory.claim(wanted(2, extra=networks("192.168.2.0/24", "192.0.2.0/24"))).refusals == ()


def test_one_older_device_among_several_is_enough_for_a_refusal_and_nobody_loses_anything() -> None:
    territory = Territory(GROUND)
    territory.claim(wanted(1, extra=networks("192.168.1.0/24")))
    territory.claim(wanted(3, extra=networks("192.168.3.0/24")))
    assert territory.claim(wanted(2, extra=networks("192.168.0.0/16"))).losers == ()
    assert territory.claim(wanted(3, extra=networks("192.168.3.0/24"))).refusals == ()


def test_a_claim_replaces_the_devices_earlier_one() -> None:
    territory = Territory(GROUND)
    territory.claim(wanted(1, extra=networks("192.168.1.0/24")))
    territory.claim(wanted(1, extra=networks("192.168.2.0/24")))
    assert territory.claim(wanted(2, extra=networks("192.168.1.0/24"))).refusals == ()


NETWORKS = st.builds(
    lambda base, length: IPv4Network(((172 << 24) | (base << 16), length), strict=False),
    st.integers(min_value=16, max_value=31),
    st.integers(min_value=11, max_value=20),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.lists(NETWORKS, max_size=3)), max_size=40))
def test_no_two_devices_ever_have_overlapping_networks_and_what_settles_does_not_depend_on_the_order(
    claims: list[tuple[int, list[IPv4Network]]],
) -> None:
    territory = Territory(GROUND)
    wishes = {number: wanted(number, extra=tuple(cidrs)) for number, cidrs in claims}
    held: dict[str, tuple[Network, ...]] = {}
    for number, cidrs in claims:
        _claim(territory, wanted(number, extra=tuple(cidrs)), held)
        _nothing_overlaps(held)
    for _ in range(len(wishes) + 1):
        for wish in wishes.values():
            _claim(territory, wish, held)
    fresh = Territory(GROUND)
    in_order = {
        wish.device: fresh.claim(wish).extra_cidrs for wish in sorted(wishes.values(), key=lambda each: each.seniority)
    }
    assert held == in_order


def _claim(territory: Territory, wish: Wanted, held: dict[str, tuple[Network, ...]]) -> None:
    granted = territory.claim(wish)
    held[wish.device] = granted.extra_cidrs
    for loser in granted.losers:
        held[loser] = tuple(
            cidr for cidr in held[loser] if not any(overlap(cidr, taken) for taken in granted.extra_cidrs)
        )


def _nothing_overlaps(held: dict[str, tuple[Network, ...]]) -> None:
    every = [cidr for cidrs in held.values() for cidr in cidrs]
    assert not any(overlap(one, other) for index, one in enumerate(every) for other in every[:index])


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("10.201.3.7/24", "which overlaps the mesh's block 10.201.0.0/16: write another block"),
        ("10.0.0.7/8", "which overlaps the mesh's block"),
        ("10.201.3.7/32", "which overlaps the mesh's block"),
        ("fd00:201::7/48", "which overlaps the mesh's block fd00:201::/64"),
        ("10.43.9.1/24", "which overlaps the cluster's services 10.43.0.0/16: it cannot reach all of them"),
    ],
)
def test_a_host_that_is_in_a_network_of_the_mesh_itself_is_told(address: str, sentence: str) -> None:
    refusal = own_network_refusal([ip_interface("192.168.1.5/24"), ip_interface(address)], GROUND)
    assert refusal is not None
    assert refusal.reason == "HostNetworkOverlaps"
    assert sentence in refusal.message


@pytest.mark.parametrize(
    "address", ["127.0.0.1/8", "::1/128", "fe80::1/64", "192.168.1.5/24", "10.43.0.1/32", "10.42.7.1/24"]
)
def test_other_networks_of_a_host_are_its_own_business(address: str) -> None:
    assert own_network_refusal([ip_interface(address)], GROUND) is None


def test_a_network_that_is_routed_to_the_host_anyway_is_not_in_the_way() -> None:
    ground = Ground(networks("10.0.0.0/8"))
    assert own_network_refusal([ip_interface("10.42.7.1/24")], ground, own=networks("10.42.7.0/24")) is None


@pytest.mark.parametrize(
    ("nodes", "avoid", "found"),
    [
        (["10.42.0.0/24", "10.42.7.0/24"], [], ["10.42.0.0/16"]),
        (["10.42.0.0/24", "10.44.7.0/24"], [], ["10.42.0.0/16", "10.44.0.0/16"]),
        (["10.42.7.0/24", "10.42.9.0/24"], ["10.42.128.0/17"], ["10.42.7.0/24", "10.42.9.0/24"]),
        (["fd00:42:0:7::/64"], [], ["fd00:42::/56"]),
        (["fd00:42:0:7::/64", "10.42.7.0/24"], [], ["10.42.0.0/16", "fd00:42::/56"]),
        (["10.64.0.0/10"], [], ["10.0.0.0/8"]),
        ([], [], []),
    ],
)
def test_the_clusters_pod_networks_are_guessed_from_its_nodes(
    nodes: list[str], avoid: list[str], found: list[str]
) -> None:
    assert pod_networks(networks(*nodes), networks(*avoid)) == networks(*found)


def test_a_new_node_of_the_same_cluster_changes_nothing() -> None:
    nodes = [IPv4Network("10.244.0.0/24")]
    guessed = pod_networks(nodes, ())
    for number in range(1, 256):
        nodes.append(IPv4Network(f"10.244.{number}.0/24"))
    assert pod_networks(nodes, ()) == guessed
