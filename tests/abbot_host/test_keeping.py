"""What was ensured outlives the daemon and the host, is mended, and goes when it shall go."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgefarm.errors import InvalidMessage, NetworkFailed
from tests.abbot_host.kit import Host, Keys, bridge, differences, forget_reboot, peer, tunnel
from tests.netkit import needs_root_network

pytestmark = needs_root_network
FAR = Keys()
GIVEN = Keys()


def network(host: Host) -> None:
    """A bridge and two tunnels, one with a key that was given."""
    far = peer(FAR.public, "10.9.0.2/32", endpoint="192.0.2.9:7", pre_shared_key=Keys().private)
    host.ensure(
        bridge("br0", "10.8.0.1/24", alias="a bridge", mtu=1400, mac="02:00:00:00:00:08"),
        tunnel("wg0", "10.9.0.1/24", peers=(far,), listen_port=51820, routing={"enabled": True, "table": 99}),
        tunnel("wg1", private_key=GIVEN.private, listen_port=51821),
    )


def network_with_partial_tunnels(host: Host) -> None:
    """The same, with no word about the tunnels' peers."""
    host.ensure(
        bridge("br0", "10.8.0.1/24", alias="a bridge", mtu=1400, mac="02:00:00:00:00:08"),
        tunnel("wg0", "10.9.0.1/24", listen_port=51820, routing={"enabled": True, "table": 99}, partial=True),
        tunnel("wg1", private_key=GIVEN.private, listen_port=51821, partial=True),
    )


@pytest.mark.parametrize("reboot", [False, True])
def test_everything_returns_after_the_end_of_the_daemon_and_of_the_host(host: Host, reboot: bool) -> None:
    network(host)
    picture = host.picture()
    forget_reboot(host) if reboot else host.kill()
    host.start()
    assert host.call("restore") == []
    assert differences(picture, host.picture()) == []


def test_a_killed_daemon_leaves_no_tunnel_process_behind(host: Host) -> None:
    network(host)
    assert "wg0" in host.space.ip("link")
    host.kill()
    host.start()
    assert "wg0" not in host.space.ip("link")
    assert "br0" in host.space.ip("link")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("]}\n]}", ""),
        ('"interfaces": [', '"interfaces": [5, '),
        ('"name": "wg0"', '"name": 5'),
        ('"10.8.0.1/24"', '"nowhere"'),
        ('"10.9.0.2/32"', "{}"),
        ("FAR", "no key"),
        ('"listen_port": 51820', '"listen_port": "all"'),
        ('"mtu": 1400', '"mtu": null'),
    ],
)
def test_a_state_that_cannot_be_read_is_kept_aside(host: Host, old: str, new: str) -> None:
    network(host)
    host.kill()
    state, old = host.data / "state.json", old.replace("FAR", FAR.public)
    assert old in state.read_text()
    state.write_text(state.read_text().replace(old, new))
    host.start()
    assert host.call("restore") == []
    assert (host.data / "state.json.unreadable").exists()
    assert host.query("mesh") == {}
    assert host.problem(bridge("br0")) == "interface br0 exists and was not made by abbot: take another name"


@pytest.mark.parametrize(
    "damage",
    [
        "ip link del br0",
        "ip link del wg0",
        "ip link set wg0 down",
        "ip link set br0 down mtu 1300 alias other",
        "ip link set wg0 mtu 1300",
        "ip address flush dev wg0",
        "ip address del 10.8.0.1/24 dev br0",
        "ip address add 10.77.0.1/24 dev br0",
        "ip route flush table 99",
        "ip rule del priority 32764",
        "ip rule del priority 32763",
        "wg set wg0 peer FAR remove",
        "wg set wg0 peer FAR allowed-ips 10.66.0.0/16",
        "wg set wg0 peer GIVEN allowed-ips 10.66.0.0/16",
        "wg set wg1 listen-port 6",
    ],
)
def test_what_somebody_deleted_or_changed_is_mended(host: Host, damage: str) -> None:
    network(host)
    picture = host.picture()
    host.space.run(damage.replace("FAR", FAR.public).replace("GIVEN", GIVEN.public).split())
    assert differences(picture, host.picture()) != []
    assert host.call("repair") == []
    assert differences(picture, host.picture()) == []


def test_a_second_repair_changes_nothing(host: Host) -> None:
    network(host)
    picture = host.picture()
    assert host.call("repair") == []
    assert differences(picture, host.picture()) == []


def stat_of(pid: str) -> str:
    """What the kernel tells of a process; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return ""


def has_ended(pid: str) -> bool:
    """Whether all its threads have, so that its parent can be told."""
    _, _, state = stat_of(pid).rpartition(") ")
    return state[:1] in ("", "Z") and len(list(Path("/proc").glob(f"{pid}/task/*"))) <= 1


@pytest.mark.parametrize("look", ["repair", "tunnels", "ensure"])
def test_a_tunnel_process_that_died_is_started_again(host: Host, look: str) -> None:
    network(host)
    picture = host.picture()
    pids = host.space.run(["ip", "netns", "pids", host.space.name]).split()
    tunnels = [pid for pid in pids if stat_of(pid).startswith(f"{pid} (wireguard-go)")]
    assert tunnels
    for pid in tunnels:
        host.space.run(["kill", "-9", pid])
    deadline = time.monotonic() + 20
    while not all(map(has_ended, tunnels)):  # the interface goes a moment before
        assert time.monotonic() < deadline
    if look == "ensure":
        network_with_partial_tunnels(host)
    else:
        host.call(look)
    assert differences(picture, host.picture()) == []


def test_an_interface_that_somebody_put_in_the_place_of_ours_is_left_alone(host: Host) -> None:
    network(host)
    host.space.ip("link", "del", "br0")
    host.space.ip("link", "add", "br0", "type", "veth", "peer", "name", "br0x")
    picture = host.picture()
    assert host.call("repair") == ["interface br0 exists and is not ours: somebody made it (veth)"]
    assert differences(picture, host.picture()) == []
    host.ensure()
    assert "br0" in host.space.ip("link")


def test_keys_are_kept_apart_readable_by_root_only_and_go_with_their_interface(host: Host) -> None:
    network(host)
    keys = host.data / "keys"
    assert {path.name for path in keys.iterdir()} == {"wg0.key", "wg1.key"}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*keys.iterdir(), host.data / "state.json"]} == {0o600}
    state = (host.data / "state.json").read_text()
    for path in keys.iterdir():
        assert path.read_text().strip() not in state
    first = host.query("mesh")["wg0"].wireguard
    assert first.private_key == ""
    assert {one.pre_shared_key for one in first.peers} == {""}
    network(host)
    assert host.query("mesh")["wg0"].wireguard.public_key == first.public_key
    assert host.query("mesh")["wg1"].wireguard.public_key == GIVEN.public
    host.ensure(tunnel("wg1"))
    assert host.query("mesh")["wg1"].wireguard.public_key != GIVEN.public
    assert {path.name for path in keys.iterdir()} == {"wg1.key"}
    host.ensure()
    assert list(keys.iterdir()) == []


def test_interfaces_of_others_are_never_touched(host: Host) -> None:
    network(host)
    host.set_static(bridge("br9", "10.6.0.1/24"))
    host.space.ip("link", "add", "d0", "type", "bridge")
    picture = host.picture()
    for problem, words in (
        (host.problem(bridge("d0")), "interface d0 exists and was not made by abbot"),
        (host.problem(bridge("br9")), "interface br9 belongs to the provider 'static'"),
        (host.problem(bridge("wg0"), provider="other"), "interface wg0 belongs to the provider 'mesh'"),
        (host.problem(bridge("br7"), provider="static"), "the provider 'static' stands for abbot's own configuration"),
        (host.problem(tunnel("wg7", partial=True)), "interface wg7 does not exist yet"),
    ):
        assert words in str(problem)
    assert differences(picture, host.picture()) == []
    host.ensure()
    assert set(host.query()) == {"lo", "br9", "d0"}
    seen = host.query()
    assert (seen["d0"].provider, seen["d0"].WhichOneof("config")) == ("", "unknown")
    assert (seen["br9"].provider, seen["br9"].metadata.addresses[0]) == ("static", "10.6.0.1/24")
    assert list(seen["lo"].metadata.addresses) == ["127.0.0.1/8", "::1/128"]


def test_a_route_that_cannot_be_is_refused_and_nothing_stays(host: Host) -> None:
    host.space.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
    host.space.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    host.space.ip("link", "set", "eth0", "up")
    picture = host.picture()
    far = peer(FAR.public, "10.9.0.0/24", "192.0.2.0/24")
    with pytest.raises(NetworkFailed, match=r"cannot add the route to 192\.0\.2\.0/24 through wg0: File exists"):
        host.ensure(tunnel("wg0", "10.9.0.1/24", peers=(far,), routing={"enabled": True}))
    after = host.picture()
    after["files"].pop("state.json")
    assert differences(picture, after) == []
    with pytest.raises(InvalidMessage, match=r"routing\.table"):
        host.ensure(tunnel("wg0", peers=(peer(FAR.public, "0.0.0.0/0"),), routing={"enabled": True}))


def test_what_shall_not_stay_goes_with_the_daemon(host: Host) -> None:
    network(host)
    leaving = bridge("br1")
    leaving.metadata.delete_on_exit = True
    host.set_static(leaving, bridge("br2"))
    host.call("close")
    assert {link["ifname"] for link in json.loads(host.space.ip("-j", "link"))} == {"lo", "br0", "br2"}
    assert "32764" not in host.space.ip("rule")
    host.kill()
    host.start()
    assert host.call("restore") == []
    assert set(host.query("mesh", "static")) == {"br0", "br1", "br2", "wg0", "wg1"}


def test_a_partial_change_leaves_all_other_peers_and_answers_the_listed_ones(host: Host) -> None:
    others = [Keys().public for _ in range(3)]
    settings: dict[str, Any] = {"listen_port": 51820, "routing": {"enabled": True}}
    first = tuple(peer(key, f"10.9.{number}.0/24") for number, key in enumerate(others))
    host.ensure(tunnel("wg0", peers=first, **settings))
    change = (peer(others[1], "10.9.1.0/24", "10.99.0.0/16", endpoint="192.0.2.9:7"), peer(FAR.public, "10.9.7.0/24"))
    answer = host.ensure(tunnel("wg0", peers=change, partial=True, removed_peers=[others[0]], **settings))
    assert [one.public_key for one in answer[0].wireguard.peers] == [others[1], FAR.public]
    assert [one.public_key for one in host.query("mesh")["wg0"].wireguard.peers] == [others[1], others[2], FAR.public]
    routes = {route["dst"] for route in json.loads(host.space.ip("-j", "route", "show", "dev", "wg0"))}
    assert routes == {"10.9.1.0/24", "10.9.2.0/24", "10.9.7.0/24", "10.99.0.0/16"}
    assert host.allowed("wg0")[others[1]] >= {"10.9.1.0/24", "10.99.0.0/16"}
    picture = host.picture()
    assert host.call("repair") == []
    assert differences(picture, host.picture()) == []


def test_settings_of_ports_apply_to_the_ports_that_a_bridge_has_and_gets(host: Host) -> None:
    host.ensure(bridge("br0"))
    for port in ("p0", "p1"):
        host.space.ip("link", "add", port, "type", "veth", "peer", "name", f"{port}x")
    host.space.ip("link", "set", "p0", "master", "br0")
    chosen: dict[str, Any] = {"hairpin": True, "fastLeave": True, "learning": True, "proxy_arp_wifi": True}
    answer = host.ensure(bridge("br0", **chosen))[0].bridge
    assert {name for name in chosen if getattr(answer, name)} == set(chosen)
    host.space.ip("link", "set", "p1", "master", "br0")
    assert host.call("repair") == []
    for port in ("p0", "p1"):
        data = json.loads(host.space.ip("-j", "-d", "link", "show", port))[0]["linkinfo"]["info_slave_data"]
        on = {name for name in ("hairpin", "guard", "root_block", "fastleave", "learning", "flood") if data[name]}
        assert on == {"hairpin", "fastleave", "learning"}
        assert (data["proxy_arp"], data["proxy_arp_wifi"]) == (False, True)


def test_who_cannot_serve_a_tunnel_says_so(make_host: Callable[..., Host]) -> None:
    strict = make_host("k", backend="kernel")
    problem = strict.problem(tunnel("wg0"))
    assert problem in (None, "cannot create wireguard interface wg0: Operation not supported")
    program = make_host("p", backend="userspace", program="/nowhere/wireguard-go")
    assert program.problem(tunnel("wg0")) == (
        "interface wg0: cannot start /nowhere/wireguard-go: No such file or directory; install it (Debian:"
        " wireguard-go), or set wireguard.program"
    )
    assert make_host("f", backend="userspace", program="false").problem(tunnel("wg0")) == (
        "interface wg0: false ended at once: it said nothing"
    )
