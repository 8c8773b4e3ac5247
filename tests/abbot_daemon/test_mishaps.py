"""What a daemon does when its surroundings break: processes that die, a disk that is full, a kernel without IPv6."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from abbot.client import RequestFailed
from edgefarm.abbotproto import abbot_pb2 as pb
from localcluster.netns import Namespace, Namespaces
from tests.abbot_daemon.kit import Abbot, bridge, wait_until
from tests.netkit import needs_root_network, spaces

pytestmark = needs_root_network
__all__ = ["spaces"]

Peer = pb.DriverWireguard.Peer
FAST: Final = {"probeEvery": "1s", "deadAfter": "3s"}
ADDRESS: Final = {"a": "192.0.2.1", "b": "192.0.2.2"}
PORT: Final = 51820


@pytest.fixture
def host(spaces: Namespaces, work: Path) -> Callable[..., Abbot]:
    """Makes an abbot in a namespace of its own; it looks after nothing by itself but the paths."""

    def make(short: str = "host", **config: Any) -> Abbot:
        return Abbot(spaces.add(short), work / short, {"paths": FAST, "repairEvery": "1h", **config})

    return make


@pytest.fixture
def pair(host: Callable[..., Abbot], spaces: Namespaces) -> tuple[Abbot, Abbot]:
    """Two hosts with a cable between them and a tunnel over it, through which they hear each other."""
    one, other = host("a"), host("b")
    spaces.link(
        one.space, "eth0", other.space, "eth0", a_addresses=[f"{ADDRESS['a']}/24"], b_addresses=[f"{ADDRESS['b']}/24"]
    )
    for abbot in (one, other):
        abbot.start()
        abbot.ensure("mesh", tunnel())
    meet(one, other)
    return one, other


def tunnel(*peers: Peer, partial: bool = False) -> pb.HostNetworkInterface:
    driver = pb.DriverWireguard(listen_port=PORT, peers=peers, partial=partial)
    return pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="wg0"), wireguard=driver)


def public_key(abbot: Abbot) -> str:
    return abbot.query("mesh")[0].wireguard.public_key


def meet(one: Abbot, other: Abbot) -> None:
    """Make them peers of each other, and wait until both are alive."""
    for here, there, address in ((one, other, ADDRESS["b"]), (other, one, ADDRESS["a"])):
        here.ensure("mesh", tunnel(Peer(public_key=public_key(there), endpoint=f"{address}:{PORT}")))
    wait_until(lambda: alive(one) and alive(other), "alive")


def alive(abbot: Abbot) -> bool:
    return all(peer.alive for peer in abbot.query("mesh")[0].wireguard.peers)


def tunnel_process(space: Namespace) -> str | None:
    """The process id of the namespace's wireguard-go, while there is one."""
    pids = space.run(["ip", "netns", "pids", space.name]).split()
    names = {space.run(["cat", f"/proc/{pid}/comm"], check=False).strip(): pid for pid in pids}
    return names.get("wireguard-go")


def test_a_tunnel_whose_process_dies_returns_before_the_next_repair(pair: tuple[Abbot, Abbot]) -> None:
    one, _ = pair
    died = tunnel_process(one.space)
    assert died is not None
    one.space.run(["kill", "-9", died])
    wait_until(lambda: tunnel_process(one.space) not in (None, died) and alive(one), "alive again")


def test_peers_hear_each_other_after_a_host_has_got_another_key(pair: tuple[Abbot, Abbot]) -> None:
    one, other = pair
    before = public_key(one)
    changed = tunnel()
    changed.wireguard.private_key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    one.ensure("mesh", changed)
    assert public_key(one) != before
    other.ensure("mesh", tunnel(Peer(public_key=public_key(one), endpoint=f"{ADDRESS['a']}:{PORT}")))
    changed.wireguard.peers.add(public_key=public_key(other), endpoint=f"{ADDRESS['b']}:{PORT}")
    one.ensure("mesh", changed)
    wait_until(lambda: alive(one) and alive(other), "alive with the new key")


def launch_in_a_mount_namespace(abbot: Abbot, prepare: str) -> None:
    """Start the daemon after mounts that nobody else sees."""
    command = [sys.executable, "-m", "abbot", "-c", str(abbot.config), "daemon"]
    script = f'{prepare} && exec "$@"'
    abbot.process = abbot.space.start("abbot", ["unshare", "-m", "sh", "-c", script, "sh", *command], log=abbot.log)
    abbot.process.wait_until(abbot.answers, "answering", 20)


def on_a_small_disk(abbot: Abbot) -> Callable[[str], str]:
    """Start the daemon with a disk of its own for its data; runs a line of shell where that disk is seen."""
    data = abbot.folder / "data"
    data.mkdir()
    launch_in_a_mount_namespace(abbot, f"mount -t tmpfs -o size=128k none {data}")
    assert abbot.process is not None
    inside = ["nsenter", "-m", "-t", str(abbot.process.pid), "sh", "-c"]
    return lambda line: abbot.space.run([*inside, line], check=False)


def test_a_full_disk_refuses_changes_and_lets_the_rest_go_on(host: Callable[..., Abbot]) -> None:
    abbot = host()
    inside = on_a_small_disk(abbot)
    abbot.ensure("p", bridge("br0", "10.8.0.1/24"))
    inside(f"dd if=/dev/zero of={abbot.folder}/data/full bs=4k")
    with pytest.raises(RequestFailed) as refused:
        abbot.ensure("p", bridge("br0", "10.9.0.1/24"), bridge("br1"))
    assert str(refused.value) == "cannot store the change: No space left on device"
    assert "br1" not in abbot.links()
    assert "10.8.0.1/24" in abbot.space.ip("address")
    inside(f"rm {abbot.folder}/data/full")
    abbot.ensure("p", bridge("br0", "10.9.0.1/24"), bridge("br1"))


def test_a_container_can_be_deleted_while_the_disk_is_full(host: Callable[..., Abbot], spaces: Namespaces) -> None:
    abbot = host(container={"pluginDirs": ["/usr/lib/cni"], "masquerade": False})
    old, new = (spaces.add(name) for name in ("old", "new"))
    inside = on_a_small_disk(abbot)
    abbot.ask(pb.ContainerNetworkConfigEnsureRequest(ipv4_subnet="10.77.1.0/24"))
    ensure = pb.ContainerNetworkEnsureRequest
    abbot.ask(ensure(container_id="old", netns=str(old.path)))
    inside(f"dd if=/dev/zero of={abbot.folder}/data/full bs=4k")
    with pytest.raises(RequestFailed, match=r"new\.json cannot be stored: No space left on device"):
        abbot.ask(ensure(container_id="new", netns=str(new.path)))
    assert "eth0" not in new.ip("link")
    abbot.ask(pb.ContainerNetworkDeleteRequest(container_id="old"))
    assert "eth0" not in old.ip("link")


def test_what_a_host_lacks_is_named(host: Callable[..., Abbot]) -> None:
    abbot = host()
    launch_in_a_mount_namespace(abbot, "mount -t tmpfs none /dev/net")
    with pytest.raises(RequestFailed, match="/dev/net/tun does not exist"):
        abbot.ensure("mesh", tunnel())
    abbot.space.run(["sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"])
    with pytest.raises(RequestFailed, match=r"Permission denied \(is IPv6 switched off\?"):
        abbot.ensure("mesh", bridge("br0", "fd00::1/64"))
    assert abbot.links() == {"lo"}
    abbot.stop()
    abbot.configure({"wireguard": {"backend": "userspace", "program": "/nowhere/wireguard-go"}})
    abbot.start()
    with pytest.raises(RequestFailed, match="cannot start /nowhere/wireguard-go: No such file or directory; install"):
        abbot.ensure("mesh", tunnel())
