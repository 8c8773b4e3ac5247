"""Who is whose peer, where it is tried, and what it carries."""

from __future__ import annotations

import pytest

from edgefarm.abbotproto import abbot_pb2 as pb
from reconciler.desired.mesh.members import Member, in_order, outside
from reconciler.desired.mesh.peers import KEEPALIVE_SECONDS, direct_peer, may_be_direct, peer_at_gateway, relay_peers
from reconciler.desired.mesh.requests import edge_peers
from tests.mesh_plan.kit import PODS, backbone, edge, gateway, hosts, key, networks

COMMON = ["10.201.0.0/16", "fd00:201::/64", "10.42.0.0/16", "10.43.0.0/16"]
Use = pb.DriverWireguard.Peer.Use


def test_a_gateway_has_everything_of_a_device_at_its_peer() -> None:
    member = edge(1, extra_cidrs=networks("192.168.7.0/24"))
    peer = peer_at_gateway(member, gateway(1))
    assert peer == pb.DriverWireguard.Peer(
        public_key=key("edge-1"), allowed_ips=["10.201.0.3/32", "10.42.1.0/24", "192.168.7.0/24"]
    )


def test_a_gateway_calls_a_device_only_where_its_spec_says() -> None:
    assert peer_at_gateway(edge(1, endpoint="198.51.100.1:51820"), gateway(1)).endpoint == "198.51.100.1:51820"
    assert peer_at_gateway(edge(1, own_addresses=hosts("198.51.100.1")), gateway(1)).endpoint == ""


def test_gateways_find_each_other_at_their_own_addresses() -> None:
    other = gateway(2, endpoint="", own_addresses=hosts("fd00::9", "127.0.0.1", "198.51.100.9", "10.0.0.9"))
    peer = peer_at_gateway(other, gateway(1))
    assert [peer.endpoint, *peer.candidates] == ["198.51.100.9:51820", "10.0.0.9:51820", "[fd00::9]:51820"]


def test_an_edge_host_lists_the_same_prefixes_at_every_gateway_and_each_ones_own() -> None:
    first, second = gateway(1), gateway(2, extra_cidrs=networks("172.20.0.0/16"))
    peers = relay_peers(edge(1), backbone(second, first, edge(1)))
    assert [peer.public_key for peer in peers] == [first.public_key, second.public_key]
    assert list(peers[0].allowed_ips) == ["10.201.255.1/32", *COMMON]
    assert list(peers[1].allowed_ips) == ["10.201.255.2/32", "172.20.0.0/16", *COMMON]
    assert {peer.use for peer in peers} == {Use.ALWAYS}
    assert [peer.endpoint for peer in peers] == ["203.0.113.1:51820", "203.0.113.2:51820"]


def test_every_edge_host_prefers_the_same_gateway_the_oldest() -> None:
    gateways = [gateway(3), gateway(1), gateway(2)]
    assert [each.name for each in in_order(gateways)] == ["gateway.cloud-1", "gateway.cloud-2", "gateway.cloud-3"]
    orders = {tuple(peer.public_key for peer in relay_peers(edge(number), backbone(*gateways))) for number in range(20)}
    assert len(orders) == 1


def test_a_gateway_without_a_key_and_edge_hosts_are_no_relays() -> None:
    assert in_order([gateway(1, public_key=""), edge(1)]) == ()


def test_networks_outside_the_clusters_are_listed_by_all_others() -> None:
    far = edge(1, pod_cidrs=networks("172.16.1.0/24"), extra_cidrs=networks("192.168.7.0/24"))
    everything = backbone(gateway(1), far, edge(2))
    assert outside(far, PODS) == networks("172.16.1.0/24", "192.168.7.0/24")
    assert list(relay_peers(edge(2), everything)[0].allowed_ips)[-2:] == ["172.16.1.0/24", "192.168.7.0/24"]
    assert list(relay_peers(far, everything)[0].allowed_ips)[1:] == COMMON


@pytest.mark.parametrize(("connected", "carrying"), [((True, True), 0), ((False, True), 1), ((False, False), 0)])
def test_with_an_abbot_that_cannot_fail_over_one_gateway_carries_everything(
    connected: tuple[bool, bool], carrying: int
) -> None:
    gateways = [gateway(number, connected=each) for number, each in enumerate(connected)]
    peers = relay_peers(edge(1, extended=False), backbone(*gateways))
    listed = [COMMON[0] in peer.allowed_ips for peer in peers]
    assert listed == [number == carrying for number in range(2)]
    assert [next(iter(peer.allowed_ips)) for peer in peers] == ["10.201.255.0/32", "10.201.255.1/32"]


@pytest.mark.parametrize(
    ("heard_at", "behind_nat", "keepalive"),
    [
        ("", None, KEEPALIVE_SECONDS),
        ("198.51.100.7:4711", True, KEEPALIVE_SECONDS),
        ("192.168.1.5:4711", False, 0),
        ("[2001:db8::5]:51820", False, 0),
        ("[2001:db8::6]:51820", True, KEEPALIVE_SECONDS),
    ],
)
def test_who_is_heard_from_a_foreign_address_is_behind_nat_and_keeps_the_way_open(
    heard_at: str, behind_nat: bool | None, keepalive: int
) -> None:
    member = edge(1, heard_at=heard_at, own_addresses=hosts("192.168.1.5", "2001:db8::5"))
    assert member.behind_nat is behind_nat
    assert relay_peers(member, backbone(gateway(1)))[0].persistent_keepalive_interval == keepalive
    assert direct_peer(member, edge(2)).persistent_keepalive_interval == keepalive


LAN = hosts("192.168.1.5", "127.0.0.1", "fe80::1", "10.42.2.1", "fd00:1::5")


@pytest.mark.parametrize(
    ("partner", "tried"),
    [
        ({}, [""]),
        ({"heard_at": "198.51.100.9:4711"}, ["198.51.100.9:4711"]),
        ({"heard_at": "198.51.100.9:4711", "own_addresses": LAN}, ["198.51.100.9:4711"]),
        (
            {"heard_at": "198.51.100.7:4711", "own_addresses": LAN},
            ["192.168.1.5:51820", "[fd00:1::5]:51820", "198.51.100.7:4711"],
        ),
        (
            {"endpoint": "dyn.example:1", "heard_at": "198.51.100.9:4711"},
            ["dyn.example:1", "198.51.100.9:4711"],
        ),
        ({"endpoint": "198.51.100.9:1", "heard_at": "198.51.100.9:1"}, ["198.51.100.9:1"]),
    ],
)
def test_a_direct_peer_is_tried_where_it_can_be(partner: dict[str, object], tried: list[str]) -> None:
    member = edge(1, heard_at="198.51.100.7:2000")
    peer = direct_peer(member, edge(2, **partner))
    assert [peer.endpoint, *peer.candidates] == tried
    assert peer.use == Use.WHEN_ALIVE
    assert list(peer.allowed_ips) == ["10.201.0.4/32", "10.42.2.0/24"]


@pytest.mark.parametrize(
    ("member", "direct"),
    [(edge(1), True), (edge(1, public_key=""), False), (edge(1, extended=False), False), (gateway(1), False)],
)
def test_only_edge_hosts_with_a_key_and_an_extended_abbot_try_it_directly(member: Member, direct: bool) -> None:
    assert may_be_direct(member) is direct


def test_an_edge_host_that_is_not_extended_has_relay_peers_only() -> None:
    member = edge(1, extended=False)
    peers = edge_peers(member, backbone(gateway(1)), [edge(2), edge(3)])
    assert [peer.public_key for peer in peers] == [gateway(1).public_key]


def test_a_direct_peer_with_networks_that_gateways_list_too_comes_before_them() -> None:
    near, far = edge(2), edge(3, extra_cidrs=networks("192.168.7.0/24"))
    peers = edge_peers(edge(1), backbone(gateway(1), near, far), [near, far])
    assert [peer.public_key for peer in peers] == [far.public_key, gateway(1).public_key, near.public_key]
