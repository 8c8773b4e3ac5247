"""Requests to hosts: whole ones, what partial ones hold, and when nothing is to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from abbot.carrying import Carrier, carried
from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.api.edge_device import Dns
from reconciler.desired.mesh.members import Backbone, Interface, Member, MeshAddresses
from reconciler.desired.mesh.peers import Peer, peer_at_gateway
from reconciler.desired.mesh.requests import (
    Ensure,
    container_config,
    edge_peers,
    host_config,
    nothing,
    peer_update,
    repair,
    update,
)
from tests.mesh_plan.kit import backbone, edge, gateway, key, networks

ADDITIONS = 1001


def whole(member: Member, known: Backbone, partners: Iterable[Member] = ()) -> Ensure:
    return host_config(member, edge_peers(member, known, partners))


def additions(message: Message, descriptor: Descriptor) -> list[str]:
    """Set fields of abbot-proto's additions, anywhere in the message."""
    found = []
    for field, value in message.ListFields():
        if field.number >= ADDITIONS:
            found.append(field.name)
        if field.message_type is not None:
            inner = value if field.is_repeated else [value]
            found += [name for each in inner for name in additions(each, field.message_type)]
    return found


def test_a_whole_request_holds_the_interface_and_every_peer() -> None:
    interface = Interface("wg0", 1380, 51900, routing_table=100, firewall_mark=7)
    member = edge(1, interface=interface)
    request = whole(member, backbone(gateway(1)), [edge(2)])
    [only] = request.expected
    assert (request.provider, only.provider) == (names.MESH_PROVIDER, names.MESH_PROVIDER)
    assert only.metadata == pb.NetworkInterface(name="wg0", mtu=1380, addresses=["10.201.0.3/32"])
    assert (only.wireguard.listen_port, only.wireguard.private_key) == (51900, "")
    assert only.wireguard.routing == pb.DriverWireguard.Routing(enabled=True, table=100, firewall_mark=7)
    assert [peer.public_key for peer in only.wireguard.peers] == [gateway(1).public_key, key("edge-2")]


def test_addresses_of_both_families_stand_at_the_interface() -> None:
    known = backbone(gateway(1))
    both = MeshAddresses(IPv4Address("10.201.0.9"), IPv6Address("fd00:201::9"))
    request = whole(edge(1, addresses=both), known)
    assert list(request.expected[0].metadata.addresses) == ["10.201.0.9/32", "fd00:201::9/128"]


def test_a_host_that_leaves_is_told_that_nothing_is_ours() -> None:
    assert nothing() == Ensure(provider=names.MESH_PROVIDER)


def test_an_abbot_that_is_not_extended_gets_no_additions_and_its_key() -> None:
    member = edge(1, extended=False)
    gateways = [gateway(number, endpoint="") for number in (1, 2)]
    request = host_config(member, edge_peers(member, backbone(*gateways), [edge(2)]), private_key="secret")
    assert request.expected[0].wireguard.private_key == "secret"
    assert additions(Ensure.FromString(request.SerializeToString()), Ensure.DESCRIPTOR) == []


def test_a_gateway_that_is_not_extended_gets_no_additions_either() -> None:
    old = gateway(1, extended=False)
    others = [edge(1), edge(2, endpoint="198.51.100.2:1"), gateway(2, endpoint="")]
    request = host_config(old, [peer_at_gateway(other, old) for other in others])
    assert additions(request, Ensure.DESCRIPTOR) == []


def test_an_extended_one_gets_them() -> None:
    partner = edge(2, heard_at="198.51.100.1:1", endpoint="198.51.100.2:1")
    request = whole(edge(1), backbone(gateway(1)), [partner])
    assert additions(request, Ensure.DESCRIPTOR) == ["use", "candidates"]


def test_a_peer_that_is_new_is_all_that_is_sent() -> None:
    known = backbone(gateway(1))
    sent, wanted = whole(edge(1), known, [edge(2)]), whole(edge(1), known, [edge(2), edge(3)])
    request = update(edge(1), sent, wanted)
    assert request == peer_update(edge(1), [wanted.expected[0].wireguard.peers[-1]], ())
    assert request.expected[0].wireguard.partial


def test_a_peer_that_has_gone_is_named_by_its_key() -> None:
    known = backbone(gateway(1))
    request = update(edge(1), whole(edge(1), known, [edge(2), edge(3)]), whole(edge(1), known, [edge(3)]))
    assert request == peer_update(edge(1), [], [key("edge-2")])


def test_the_same_again_is_not_sent() -> None:
    known = backbone(gateway(1))
    assert update(edge(1), whole(edge(1), known, [edge(2)]), whole(edge(1), known, [edge(2)])) is None


@pytest.mark.parametrize(
    "changed",
    [
        edge(1, interface=Interface("edgefarm0", 1400, 51820)),
        edge(1, addresses=MeshAddresses()),
        edge(1, extended=False),
    ],
)
def test_anything_but_peers_needs_a_whole_request(changed: Member) -> None:
    known = backbone(gateway(1), gateway(2))
    sent, wanted = whole(edge(1), known, [edge(2)]), whole(changed, known, [edge(2)])
    assert update(changed, sent, wanted) == wanted


def test_an_abbot_that_is_not_extended_always_gets_whole_requests() -> None:
    old = edge(1, extended=False)
    sent = whole(old, backbone(gateway(1)))
    wanted = whole(old, backbone(gateway(1), gateway(2)))
    assert update(old, sent, wanted) == wanted
    assert update(old, wanted, wanted) is None


def test_an_older_gateway_needs_a_whole_request_because_it_comes_first() -> None:
    sent = whole(edge(1), backbone(gateway(2)), [edge(2)])
    wanted = whole(edge(1), backbone(gateway(1), gateway(2)), [edge(2)])
    assert update(edge(1), sent, wanted) == wanted
    later = whole(edge(1), backbone(gateway(2), gateway(3)), [edge(2)])
    partial = update(edge(1), sent, later)
    assert partial is not None
    assert partial.expected[0].wireguard.partial


FACTS = st.fixed_dictionaries(
    {},
    optional={
        "heard_at": st.sampled_from(["", "198.51.100.1:1", "198.51.100.2:2"]),
        "endpoint": st.sampled_from(["", "203.0.113.9:9"]),
        "extra": st.sampled_from(["192.168.{}.0/24", ""]),
    },
)


def _member(number: int, facts: dict[str, str]) -> Member:
    extra = facts.get("extra", "").format(number)
    more: dict[str, Any] = {name: facts[name] for name in ("heard_at", "endpoint") if name in facts}
    return edge(number, extra_cidrs=networks(extra) if extra else (), **more)


MESHES = st.tuples(st.sets(st.integers(1, 3), min_size=1), st.dictionaries(st.integers(2, 6), FACTS, max_size=5))


@settings(max_examples=300, deadline=None)
@given(MESHES, MESHES, st.sets(st.sampled_from(["edge-2", "edge-3", "edge-4", "gateway.cloud-1"])))
def test_a_host_that_gets_updates_carries_what_one_with_the_whole_request_does(
    before: tuple[set[int], dict[int, dict[str, str]]],
    after: tuple[set[int], dict[int, dict[str, str]]],
    alive: set[str],
) -> None:
    sent, wanted = (_of_mesh(*mesh) for mesh in (before, after))
    request = update(edge(1), sent, wanted)
    peers = _as_abbot_keeps_it(sent, request)
    expected = wanted.expected[0].wireguard.peers
    keys = {key(name) for name in alive}
    assert _what_is_carried(peers, keys) == _what_is_carried(expected, keys)
    assert {peer.public_key: peer for peer in peers} == {peer.public_key: peer for peer in expected}


def _of_mesh(gateways: set[int], partners: dict[int, dict[str, str]]) -> Ensure:
    others = [_member(number, facts) for number, facts in partners.items()]
    return whole(edge(1), backbone(*map(gateway, gateways), *others), others)


def _as_abbot_keeps_it(sent: Ensure, request: Ensure | None) -> list[Peer]:
    peers = {peer.public_key: peer for peer in sent.expected[0].wireguard.peers}
    if request is None:
        return list(peers.values())
    told = request.expected[0].wireguard
    if not told.partial:
        return list(told.peers)
    for public_key in told.removed_peers:
        del peers[public_key]
    peers.update({peer.public_key: peer for peer in told.peers})
    return list(peers.values())


def _what_is_carried(peers: Sequence[Peer], alive: set[str]) -> dict[str, set[str]]:
    carriers = [Carrier(peer.public_key, tuple(peer.allowed_ips), peer.use == Peer.ALWAYS) for peer in peers]
    return {public_key: set(prefixes) for public_key, prefixes in carried(carriers, alive).items()}


def answer(wanted: Ensure, **alive: bool) -> list[pb.HostNetworkInterface]:
    """What a host tells that has done as wanted: its own additions, and nothing about endpoints to try."""
    actual = Ensure()
    actual.CopyFrom(wanted)
    for interface in actual.expected:
        interface.metadata.addresses.append("fe80::1/64")
        interface.metadata.hardware_address = "00:00:00:00:00:01"
        interface.wireguard.public_key = key("edge-1")
        for peer in interface.wireguard.peers:
            peer.alive = alive.get("all", True)
            peer.ClearField("candidates")
            peer.ClearField("use")
            if peer.alive:
                peer.endpoint = "192.0.2.99:9"
                peer.last_handshake_ms = 1
    return list(actual.expected)


def test_a_host_that_is_as_wanted_is_left_alone() -> None:
    wanted = whole(edge(1), backbone(gateway(1), gateway(2)), [edge(2, heard_at="198.51.100.1:1")])
    assert repair(edge(1), answer(wanted), wanted) is None
    assert repair(edge(1), answer(wanted, all=False), wanted) is None


def test_an_abbot_that_does_not_repeat_how_it_routes_is_left_alone_too() -> None:
    wanted = whole(edge(1), backbone(gateway(1)))
    actual = answer(wanted)
    actual[0].wireguard.ClearField("routing")
    assert repair(edge(1), actual, wanted) is None


def test_a_host_that_has_nothing_gets_everything() -> None:
    wanted = whole(edge(1), backbone(gateway(1)))
    assert repair(edge(1), [], wanted) == wanted
    assert repair(edge(1), [], nothing()) is None
    assert repair(edge(1), answer(wanted), nothing()) == nothing()


@pytest.mark.parametrize("change", ["mtu", "address", "garbage", "port", "name", "table", "driver", "second"])
def test_a_host_whose_interface_differs_gets_everything(change: str) -> None:
    wanted = whole(edge(1), backbone(gateway(1)))
    actual = answer(wanted)
    if change == "mtu":
        actual[0].metadata.mtu = 1500
    elif change == "address":
        actual[0].metadata.addresses.append("10.201.0.99/32")
    elif change == "garbage":
        actual[0].metadata.addresses.append("what is this?")
    elif change == "port":
        actual[0].wireguard.listen_port = 1
    elif change == "name":
        actual[0].metadata.name = "wg9"
    elif change == "table":
        actual[0].wireguard.routing.table = 100
    elif change == "driver":
        actual[0].bridge.alias = "wg9"
    else:
        actual.append(actual[0])
    assert repair(edge(1), actual, wanted) == wanted


def test_a_host_with_wrong_peers_is_told_of_these_only() -> None:
    wanted = whole(edge(1), backbone(gateway(1)), [edge(2), edge(3), edge(4)])
    actual = answer(wanted)
    peers = {peer.public_key: peer for peer in actual[0].wireguard.peers}
    peers[key("edge-2")].allowed_ips.append("10.0.0.0/8")
    peers[key("edge-3")].public_key = key("edge-9")
    by_key = {peer.public_key: peer for peer in wanted.expected[0].wireguard.peers}
    changed = [by_key[key("edge-2")], by_key[key("edge-3")]]
    assert repair(edge(1), actual, wanted) == peer_update(edge(1), changed, [key("edge-9")])


def test_the_endpoint_of_a_dead_tunnel_is_corrected_and_that_of_a_live_one_is_not() -> None:
    wanted = whole(edge(1), backbone(gateway(1)))
    alive, dead = answer(wanted), answer(wanted, all=False)
    dead[0].wireguard.peers[0].endpoint = "192.0.2.1:1"
    assert repair(edge(1), alive, wanted) is None
    assert repair(edge(1), dead, wanted) == peer_update(edge(1), wanted.expected[0].wireguard.peers, ())


def test_an_endpoint_with_a_name_may_be_any_address() -> None:
    wanted = whole(edge(1), backbone(gateway(1, endpoint="gateway.example:51820")))
    actual = answer(wanted, all=False)
    actual[0].wireguard.peers[0].endpoint = "192.0.2.1:51820"
    assert repair(edge(1), actual, wanted) is None


def test_gateways_in_another_order_than_that_of_all_others_are_put_in_order() -> None:
    before = whole(edge(1), backbone(gateway(1), gateway(2)))
    wanted = Ensure()
    wanted.CopyFrom(before)
    peers = wanted.expected[0].wireguard.peers
    peers.extend([peers.pop(0)])
    assert repair(edge(1), answer(before), wanted) == wanted


def test_a_wrong_peer_of_an_abbot_that_is_not_extended_costs_a_whole_request() -> None:
    old = edge(1, extended=False)
    wanted = whole(old, backbone(gateway(1)))
    actual = answer(wanted, all=False)
    assert repair(old, actual, wanted) is None
    actual[0].wireguard.peers[0].persistent_keepalive_interval = 7
    assert repair(old, actual, wanted) == wanted


def test_containers_get_the_first_pod_network_of_each_family_and_the_resolver() -> None:
    member = edge(1, pod_cidrs=networks("10.42.1.0/24", "10.42.9.0/24", "fd00:42:1::/64"))
    dns = Dns(("10.43.0.10",), ("cluster.local",), ("ndots:5",))
    assert container_config(member, dns) == pb.ContainerNetworkConfigEnsureRequest(
        ipv4_subnet="10.42.1.0/24",
        ipv6_subnet="fd00:42:1::/64",
        dns=pb.CNICapArgs.DNSConfig(servers=["10.43.0.10"], searches=["cluster.local"], options=["ndots:5"]),
    )
    assert container_config(edge(1), None) == pb.ContainerNetworkConfigEnsureRequest(ipv4_subnet="10.42.1.0/24")
    assert not container_config(edge(1, extended=False), dns).HasField("dns")


def test_a_removed_key_of_many_is_sorted_so_that_equal_updates_are_equal_bytes() -> None:
    keys = {key(f"edge-{number}") for number in range(20)}
    request = peer_update(edge(1), [], keys)
    assert list(request.expected[0].wireguard.removed_peers) == sorted(keys)
