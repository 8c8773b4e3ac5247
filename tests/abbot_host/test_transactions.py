"""A change happens as a whole or not at all, wherever it fails, and however its process ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgefarm.abbotproto import abbot_pb2 as pb
from tests.abbot_host.kit import Host, Keys, bridge, differences, peer, tunnel
from tests.netkit import needs_root_network

pytestmark = [needs_root_network, pytest.mark.timeout(300)]
FAR = [Keys() for _ in range(4)]
ROUTED = {"enabled": True, "table": 4711, "firewall_mark": 9}
Interfaces = tuple[pb.HostNetworkInterface, ...]


def before() -> Interfaces:
    """A bridge and two tunnels."""
    return (
        bridge("br0", "10.8.0.1/24", "10.8.0.2/24", "fd08::1/64", mtu=1400, mac="02:00:00:00:00:08", alias="before"),
        tunnel(
            "wg0",
            "10.9.0.1/24",
            peers=(
                peer(
                    FAR[0].public, "10.9.0.2/32", "10.20.0.0/16", endpoint="192.0.2.9:7", pre_shared_key=FAR[3].private
                ),
                peer(FAR[1].public, "10.9.0.3/32", persistent_keepalive_interval=25),
            ),
            listen_port=51820,
            routing={"enabled": True},
        ),
        tunnel(
            "wg1",
            "10.7.0.1/24",
            peers=(peer(FAR[2].public, "10.7.0.0/24"),),
            private_key=FAR[3].private,
            listen_port=51822,
        ),
    )


def everything_else() -> Interfaces:
    """A bridge that differs in all, a tunnel that differs in all, a tunnel less, a bridge more."""
    return (
        bridge("br0", "10.8.0.2/24", mtu=1300, mac="02:00:00:00:00:09", alias="after", promisc=True, learning=True),
        tunnel(
            "wg0",
            "10.9.1.1/24",
            "fd09::1/64",
            mtu=1380,
            peers=(
                peer(FAR[1].public, "10.20.0.0/16", "::/0", endpoint="192.0.2.9:9", pre_shared_key=FAR[2].private),
                peer(FAR[2].public, "10.9.0.2/32"),
            ),
            listen_port=51821,
            private_key=FAR[0].private,
            routing=ROUTED,
        ),
        bridge("br1", "10.6.0.1/24"),
    )


def fewer_peers() -> Interfaces:
    """A change of two peers, one of them new, and one less."""
    change = tunnel(
        "wg0",
        "10.9.0.1/24",
        peers=(
            peer(FAR[1].public, "10.9.0.3/32", "10.20.0.0/16", "10.21.0.0/16", endpoint="192.0.2.9:8"),
            peer(FAR[2].public, "10.22.0.0/16"),
        ),
        listen_port=51820,
        routing={"enabled": True},
        partial=True,
        removed_peers=[FAR[0].public],
    )
    return (before()[0], change, before()[2])


def another_kind() -> Interfaces:
    """A bridge becomes a tunnel and a tunnel a bridge."""
    return (tunnel("br0", "10.8.0.1/24"), bridge("wg0", "10.9.0.1/24"))


CHANGES: list[Callable[[], Interfaces]] = [everything_else, fewer_peers, another_kind, tuple]
#: A call that fails may have had its effect or not; that it had is the harder one to take back.
FAILURES = [(change, "after") for change in CHANGES] + [(everything_else, "before")]


def prepared(host: Host) -> None:
    """A network before, with things on it that abbot did not make."""
    host.ensure(*before())
    ip = host.space.ip
    for port in ("p0", "p1"):
        ip("link", "add", port, "type", "veth", "peer", "name", f"{port}x")
        ip("link", "set", port, "master", "br0", "up")
    host.space.run(["bridge", "link", "set", "dev", "p0", "hairpin", "on", "learning", "off"])
    ip("route", "add", "10.30.0.0/16", "via", "10.9.0.77")
    ip("route", "add", "10.31.0.0/16", "dev", "br0", "metric", "7")


@pytest.mark.parametrize(("change", "how"), FAILURES)
def test_a_failure_of_any_step_leaves_everything_as_it_was(
    host: Host, change: Callable[[], Interfaces], how: str
) -> None:
    prepared(host)
    picture = host.picture()
    at = 0
    while True:
        at += 1
        host.call("arm", at=at, how=how)
        problem = host.problem(*change())
        if problem is None:
            break
        assert "injected" in problem
        assert "taken back" not in problem
        host.call("arm", at=0, how="")
        assert differences(picture, host.picture()) == [], f"call {at}: {problem}"
    assert host.call("calls") == at - 1 > 5
    host.call("arm", at=0, how="")
    assert set(host.query("mesh")) == {interface.metadata.name for interface in change()}


@pytest.mark.parametrize("change", [everything_else, fewer_peers])
def test_a_process_that_is_killed_in_the_middle_leaves_the_state_before_or_the_state_after(
    host: Host, change: Callable[[], Interfaces]
) -> None:
    host.ensure(*before())
    public_keys = {name: one.wireguard.public_key for name, one in host.query("mesh").items()}
    earlier = host.picture()
    killed = 0
    for at in range(1, 100, 3):
        host.call("arm", at=at, how="kill")
        try:
            host.ensure(*change())
        except ConnectionResetError:
            killed += 1
        else:
            break
        host.kill()
        host.start()
        assert host.call("restore") == []
        if set(host.query("mesh")) == set(public_keys) and not differences(earlier, host.picture()):
            continue
        # It had come so far that the change counts.
        assert set(host.query("mesh")) == {interface.metadata.name for interface in change()}
        settled = host.picture()
        host.call("arm", at=0, how="")
        host.ensure(*change())
        assert differences(settled, host.picture()) == []
        break
    assert killed > 5
