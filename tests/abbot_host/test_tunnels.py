"""Tunnels between two hosts: they carry what they should, when they should."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from abbot.carrying import probe_address
from tests.abbot_host.kit import Host, Keys, peer, ping, tunnel
from tests.netkit import needs_root_network

pytestmark = needs_root_network
#: 10.9.0.2:7000 as /proc/net/udp has it.
LISTENS = "0200090A:1B58"
STREAM = [sys.executable, str(Path(__file__).with_name("stream.py"))]


def connect(one: Host, other: Host, **settings: bool) -> tuple[str, str]:
    """A tunnel between the two, 10.9.0.1 and 10.9.0.2; their public keys."""
    keys = [host.ensure(tunnel("wg0", listen_port=51820))[0].wireguard.public_key for host in (one, other)]
    for number, host in enumerate((one, other)):
        far = peer(keys[1 - number], f"10.9.0.{2 - number}/32", endpoint=f"192.0.2.{2 - number}:51820", **settings)
        host.ensure(tunnel("wg0", f"10.9.0.{number + 1}/24", listen_port=51820, peers=(far,)))
    return keys[0], keys[1]


def test_two_hosts_reach_each_other_through_their_tunnel(pair: tuple[Host, Host]) -> None:
    one, other = pair
    _, far_key = connect(one, other)
    assert ping(one.space, "10.9.0.2") == 1
    assert ping(other.space, "10.9.0.1") == 1
    seen = one.query("mesh")["wg0"].wireguard.peers[0]
    assert (seen.public_key, seen.endpoint) == (far_key, "192.0.2.2:51820")
    assert abs(seen.last_handshake_ms / 1000 - time.time()) < 60
    assert seen.rx_bytes > 0
    assert seen.tx_bytes > 0


def test_a_probe_address_leads_through_the_tunnel_of_its_peer_in_both_directions(pair: tuple[Host, Host]) -> None:
    one, other = pair
    keys = connect(one, other)
    assert ping(one.space, probe_address(keys[1]), interface="wg0") == 1
    assert ping(other.space, probe_address(keys[0]), interface="wg0") == 1
    told = one.call("tunnels")
    assert told[0]["probe_address"] == probe_address(keys[0])
    assert told[0]["peers"][0]["probe_address"] == probe_address(keys[1])
    assert told[0]["peers"][0]["last_handshake"] > 0


def test_a_direct_peer_is_probed_but_carries_nothing_before_it_is_alive(pair: tuple[Host, Host]) -> None:
    one, other = pair
    keys = connect(one, other, when_alive=True)
    assert ping(one.space, "10.9.0.2") == 0
    assert ping(one.space, probe_address(keys[1]), interface="wg0") == 1
    one.alive("wg0", keys[1])
    other.alive("wg0", keys[0])
    assert ping(one.space, "10.9.0.2") == 1
    seen = one.query("mesh")["wg0"].wireguard.peers[0]
    assert (seen.alive, seen.carrying, seen.rtt_us) == (True, True, 1000)
    one.alive("wg0")
    assert ping(one.space, "10.9.0.2") == 0
    seen = one.query("mesh")["wg0"].wireguard.peers[0]
    assert (seen.alive, seen.carrying, list(seen.allowed_ips)) == (False, False, ["10.9.0.2/32"])


def test_addresses_move_between_live_peers_without_loss(pair: tuple[Host, Host]) -> None:
    """Two tunnels to the same host, one for each of its interfaces: the address moves to and fro."""
    one, other = pair
    keys = [one.ensure(tunnel("wg0", listen_port=51820))[0].wireguard.public_key]
    far = {one_of.metadata.name: one_of.wireguard.public_key for one_of in other.ensure(tunnel("wg0"), tunnel("wg1"))}
    back = peer(keys[0], "10.9.0.1/32")
    other.ensure(
        tunnel("wg0", "10.9.0.2/32", listen_port=51821, peers=(back,), routing={"enabled": True}),
        tunnel("wg1", listen_port=51822, peers=(back,)),
    )
    ports = {"wg0": 51821, "wg1": 51822}
    near = [
        peer(far[name], "10.9.0.2/32", endpoint=f"192.0.2.2:{port}", when_alive=True) for name, port in ports.items()
    ]
    one.ensure(tunnel("wg0", "10.9.0.1/24", listen_port=51820, peers=tuple(near)))
    for name in ports:
        assert ping(one.space, probe_address(far[name]), interface="wg0", count=5) >= 1
    one.alive("wg0", *far.values())
    with ThreadPoolExecutor(2) as pool:
        received = pool.submit(other.space.run, [*STREAM, "receive", "10.9.0.2", "7000", "150"])
        deadline = time.monotonic() + 20
        while LISTENS not in other.space.run(["cat", "/proc/net/udp"]):
            assert time.monotonic() < deadline
        sent = pool.submit(one.space.run, [*STREAM, "send", "10.9.0.2", "7000", "150", "0.02"])
        moves = 0
        while not sent.done():
            one.alive("wg0", far["wg1"] if moves % 2 == 0 else far["wg0"])
            moves += 1
    assert moves > 10
    assert int(received.result()) >= 149


def test_routes_follow_what_is_listed_and_not_what_is_carried(host: Host) -> None:
    listed = peer(Keys().public, "10.20.0.0/16", "fd20::/64", when_alive=True)
    host.ensure(tunnel("wg0", "10.20.0.1/16", "10.9.0.1/24", peers=(listed,), routing={"enabled": True}))
    routes = json.loads(host.space.ip("-j", "route", "show", "dev", "wg0"))
    assert [route["dst"] for route in routes if route["protocol"] == "kernel"] == ["10.9.0.0/24", "10.20.0.0/16"]
    assert "fd20::/64" in [
        route["dst"] for route in json.loads(host.space.ip("-j", "-6", "route", "show", "dev", "wg0"))
    ]
    assert host.allowed("wg0") == {listed.public_key: {f"{probe_address(listed.public_key)}/128"}}


def test_a_table_of_its_own_takes_everything_but_the_tunnels_own_packets(pair: tuple[Host, Host]) -> None:
    one, other = pair
    keys = [host.ensure(tunnel("wg0", listen_port=51820))[0].wireguard.public_key for host in pair]
    near = peer(keys[1], "0.0.0.0/0", "::/0", endpoint="192.0.2.2:51820")
    routing = {"enabled": True, "table": 4711}
    one.ensure(tunnel("wg0", "10.9.0.1/24", listen_port=51820, peers=(near,), routing=routing))
    other.ensure(
        tunnel("wg0", "10.9.0.2/24", "198.51.100.7/32", listen_port=51820, peers=(peer(keys[0], "10.9.0.1/32"),))
    )
    assert ping(one.space, "198.51.100.7") == 1
    assert ping(one.space, "192.0.2.2") == 1
    rules = json.loads(one.space.ip("-j", "rule"))
    assert {
        "priority": 32764,
        "not": None,
        "src": "all",
        "fwmark": "0x1267",
        "table": "4711",
        "protocol": "171",
    } in rules
    one.ensure()
    assert len(json.loads(one.space.ip("-j", "rule"))) == 3
    assert len(json.loads(one.space.ip("-j", "-6", "rule"))) == 2


def test_an_endpoint_that_was_found_stays_until_another_is_asked_for(host: Host) -> None:
    far = Keys().public
    host.ensure(tunnel("wg0", peers=(peer(far, "10.9.0.2/32", endpoint="192.0.2.9:1"),)))
    host.call("set_endpoint", interface="wg0", public_key=far, endpoint="192.0.2.9:2")
    host.ensure(tunnel("wg0", peers=(peer(far, "10.9.0.3/32", endpoint="192.0.2.9:1", candidates=["192.0.2.9:2"]),)))
    assert host.call("repair") == []
    told = host.call("tunnels")[0]["peers"][0]
    assert (told["endpoint"], told["current_endpoint"], told["candidates"]) == (
        "192.0.2.9:1",
        "192.0.2.9:2",
        ["192.0.2.9:2"],
    )
    host.ensure(tunnel("wg0", peers=(peer(far, "10.9.0.3/32", endpoint="192.0.2.9:3"),)))
    assert host.call("tunnels")[0]["peers"][0]["current_endpoint"] == "192.0.2.9:3"


@pytest.mark.parametrize("gone", ["wg9", "br0"])
def test_what_is_no_tunnel_any_more_is_left_alone(host: Host, gone: str) -> None:
    host.alive(gone, Keys().public)
    host.call("set_endpoint", interface=gone, public_key=Keys().public, endpoint="192.0.2.9:2")
    assert host.call("tunnels") == []
