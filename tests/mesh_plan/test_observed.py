"""What hosts tell of themselves, the paths that follow from it, and how these stand in a status."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_interface
from typing import Any

import pytest

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation, SeenPeer, heard_at, observe
from reconciler.desired.mesh.paths import PeerPath, path_counts, peer_entries, peer_paths
from reconciler.timestamps import rfc3339
from tests.mesh_plan.kit import EPOCH, edge, gateway, hosts, key

Peer = pb.DriverWireguard.Peer
NOW = EPOCH + timedelta(hours=1)


def milliseconds(seconds_ago: float) -> int:
    return round((NOW.timestamp() - seconds_ago) * 1000)


def answer(*peers: Peer, public_key: str = key("edge-1")) -> pb.HostNetworkConfigResponse:
    mesh = pb.HostNetworkInterface(
        provider=names.MESH_PROVIDER,
        metadata=pb.NetworkInterface(name="edgefarm0", addresses=["10.201.0.3/32", "fe80::9/64"]),
        wireguard=pb.DriverWireguard(public_key=public_key, peers=peers),
    )
    lan = pb.HostNetworkInterface(
        metadata=pb.NetworkInterface(name="eth0", addresses=["192.168.1.5/24", "fe80::5/64", "what is this?"]),
        unknown=pb.DriverUnknown(),
    )
    loopback = pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="lo", addresses=["127.0.0.1/8"]))
    return pb.HostNetworkConfigResponse(actual=[loopback, lan, mesh])


def test_the_hosts_own_addresses_are_those_of_its_other_interfaces() -> None:
    seen = observe(answer(), NOW)
    assert seen.addresses == tuple(map(ip_interface, ["127.0.0.1/8", "192.168.1.5/24", "fe80::5/64"]))
    assert seen.own_addresses == hosts("192.168.1.5")
    assert (seen.public_key, seen.extended) == (key("edge-1"), True)
    assert [each.metadata.name for each in seen.ours] == ["edgefarm0"]


def test_a_host_without_a_mesh_interface_tells_no_more_than_its_addresses() -> None:
    bare = answer()
    del bare.actual[2]
    seen = observe(bare, NOW)
    assert (seen.ours, seen.public_key, seen.extended, seen.peers) == ((), "", False, {})


def test_peers_of_an_extended_abbot_are_as_it_says() -> None:
    told = Peer(
        public_key=key("edge-2"),
        endpoint="198.51.100.2:9",
        last_handshake_ms=milliseconds(170),
        alive=False,
        carrying=True,
        rtt_us=12_345,
    )
    seen = observe(answer(told, Peer(public_key=key("edge-3"))), NOW).peers
    handshake = NOW - timedelta(seconds=170)
    assert seen[key("edge-2")] == SeenPeer(key("edge-2"), "198.51.100.2:9", handshake, False, True, 0.012345)
    assert seen[key("edge-3")] == SeenPeer(key("edge-3"))


@pytest.mark.parametrize(("seconds_ago", "alive"), [(0, True), (179, True), (181, False), (None, False)])
def test_peers_of_another_abbot_live_while_their_handshake_is_young(seconds_ago: int | None, alive: bool) -> None:
    told = Peer(public_key=key("edge-2"), last_handshake_ms=0 if seconds_ago is None else milliseconds(seconds_ago))
    assert observe(answer(told, public_key=""), NOW).peers[key("edge-2")].alive is alive


@pytest.mark.parametrize("text", ["", "abc", "not base64!", key("edge-1")[:-1], key("edge-1").replace("=", "") + "A="])
def test_a_public_key_that_is_none_is_not_passed_on(text: str) -> None:
    assert observe(answer(public_key=text), NOW).public_key == ""


def test_what_a_host_cannot_know_is_not_believed() -> None:
    future = Peer(public_key=key("edge-2"), last_handshake_ms=2**62, endpoint="over there", rtt_us=-1)
    past = Peer(public_key=key("edge-3"), last_handshake_ms=-(2**62))
    peers = observe(answer(future, past), NOW).peers
    assert peers[key("edge-2")] == SeenPeer(key("edge-2"), handshake=NOW)
    assert peers[key("edge-3")] == SeenPeer(key("edge-3"))


def seen(name: str, *, alive: bool = False, seconds_ago: float | None = None, **more: Any) -> SeenPeer:
    handshake = None if seconds_ago is None else NOW - timedelta(seconds=seconds_ago)
    return SeenPeer(key(name), handshake=handshake, alive=alive, **more)


def observation(*peers: SeenPeer) -> Observation:
    return Observation(peers={peer.public_key: peer for peer in peers})


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({}, {}, ""),
        ({"endpoint": "192.0.2.1:1"}, {}, ""),
        ({"endpoint": "192.0.2.1:1", "seconds_ago": 9}, {"endpoint": "192.0.2.2:2", "seconds_ago": 5}, "192.0.2.2:2"),
        (
            {"endpoint": "192.0.2.1:1", "seconds_ago": 9, "alive": True},
            {"endpoint": "192.0.2.2:2", "seconds_ago": 5, "alive": True},
            "192.0.2.1:1",
        ),
        (
            {"endpoint": "192.0.2.1:1", "seconds_ago": 3},
            {"endpoint": "192.0.2.2:2", "seconds_ago": 5, "alive": True},
            "192.0.2.2:2",
        ),
    ],
)
def test_a_device_is_heard_where_the_first_live_tunnel_or_the_last_handshake_is(
    first: dict[str, Any], second: dict[str, Any], found: str
) -> None:
    gateways = [observation(seen("edge-1", **first)), observation(seen("edge-1", **second)), observation()]
    assert heard_at(key("edge-1"), gateways) == found


MEMBERS = (gateway(1), gateway(2), edge(2), edge(3), edge(4))


def paths_of(member: Member, *peers: SeenPeer) -> dict[str, str]:
    return {each.name: each.path for each in peer_paths(member, MEMBERS, observation(*peers))}


def test_an_edge_host_reaches_gateways_by_relay_and_others_directly_where_a_tunnel_carries() -> None:
    assert paths_of(
        edge(1),
        seen("gateway.cloud-1"),
        seen("gateway.cloud-2", alive=True),
        seen("edge-2", alive=True, carrying=True),
        seen("edge-3", alive=True),
        seen("edge-4", carrying=True),
    ) == {
        "edge-2": "direct",
        "edge-3": "relay",
        "edge-4": "relay",
        "gateway.cloud-1": "none",
        "gateway.cloud-2": "relay",
    }


def test_without_a_live_gateway_only_direct_paths_are_left() -> None:
    found = paths_of(
        edge(1), seen("gateway.cloud-1"), seen("edge-2", alive=True, carrying=True), seen("edge-3", alive=True)
    )
    assert found == {"edge-2": "direct", "edge-3": "none", "gateway.cloud-1": "none"}


def test_a_gateway_reaches_everybody_directly_or_not_at_all() -> None:
    found = paths_of(gateway(3), seen("gateway.cloud-1", alive=True), seen("edge-2", alive=True), seen("edge-3"))
    assert found == {"edge-2": "direct", "edge-3": "none", "gateway.cloud-1": "direct"}


def test_peers_that_are_not_known_are_left_out() -> None:
    assert paths_of(edge(1), seen("edge-99", alive=True)) == {}


def test_paths_are_counted() -> None:
    paths = [PeerPath(f"edge-{n}", path, seen("x")) for n, path in enumerate(("direct", "relay", "relay", "direct"))]
    assert path_counts(paths) == {"relay": 2, "direct": 2, "none": 0}
    assert path_counts([]) == {"relay": 0, "direct": 0, "none": 0}


def test_a_status_lists_the_first_peers_by_name() -> None:
    members = [edge(number) for number in range(100, 200)]
    own = observation(*(seen(member.name) for member in members))
    entries = peer_entries(peer_paths(edge(1), members, own), [])
    assert [entry["name"] for entry in entries] == [f"edge-{number}" for number in range(100, 164)]


def test_an_entry_holds_what_is_known() -> None:
    full = seen("edge-2", alive=True, seconds_ago=5, endpoint="192.0.2.2:2", rtt=0.0124)
    assert peer_entries([PeerPath("edge-2", "direct", full)], []) == [
        {
            "name": "edge-2",
            "path": "direct",
            "lastHandshake": rfc3339(NOW - timedelta(seconds=5)),
            "endpoint": "192.0.2.2:2",
            "rtt": "12ms",
        }
    ]
    assert peer_entries([PeerPath("edge-2", "none", seen("edge-2"))], []) == [{"name": "edge-2", "path": "none"}]


def test_handshakes_change_nothing_for_an_hour_and_a_new_path_tells_the_times_of_all() -> None:
    first, other = seen("edge-2", alive=True, seconds_ago=3700, rtt=0.012), seen("edge-3", seconds_ago=3700)
    before = peer_entries([PeerPath("edge-2", "relay", first), PeerPath("edge-3", "relay", other)], [])
    soon = replace(first, handshake=NOW - timedelta(seconds=101), rtt=0.015)
    later = replace(first, handshake=NOW - timedelta(seconds=100))
    assert peer_entries([PeerPath("edge-2", "relay", soon), PeerPath("edge-3", "relay", other)], before) == before
    assert peer_entries([PeerPath("edge-2", "relay", later), PeerPath("edge-3", "relay", other)], before) != before
    moved = peer_entries([PeerPath("edge-2", "relay", soon), PeerPath("edge-3", "direct", other)], before)
    assert moved[0]["lastHandshake"] == rfc3339(NOW - timedelta(seconds=101))


def test_a_dead_tunnel_has_no_round_trip() -> None:
    before = peer_entries([PeerPath("edge-2", "direct", seen("edge-2", alive=True, rtt=0.012))], [])
    assert before[0]["rtt"] == "12ms"
    assert "rtt" not in peer_entries([PeerPath("edge-2", "none", seen("edge-2", rtt=0.012))], before)[0]
