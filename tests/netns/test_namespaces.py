"""Namespaces as a kit: isolated, linked, run in, and gone afterwards."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path

import pytest

from localcluster.netns import NamespaceError, Namespaces, clean_left_behind
from localcluster.process import LocalProcess
from tests.natskit import eventually
from tests.netkit import needs_root_network, spaces

__all__ = ["spaces"]

pytestmark = needs_root_network


def namespaces_of(identity: str) -> list[str]:
    return [path.name for path in Path("/run/netns").glob(f"{identity}-*")]


def runs(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty: ended, and nobody has asked for its status
    except OSError:
        return False


def joined(spaces: Namespaces) -> None:
    """Three in a row: `left`, a router, `right`."""
    left, router, right = (spaces.add(name) for name in ("left", "router", "right"))
    spaces.link(left, "eth0", router, "left", a_addresses=["10.1.0.2/24"], b_addresses=["10.1.0.1/24"])
    spaces.link(right, "eth0", router, "right", a_addresses=["10.2.0.2/24"], b_addresses=["10.2.0.1/24"])
    left.ip("route", "add", "default", "via", "10.1.0.1")
    right.ip("route", "add", "default", "via", "10.2.0.1")
    router.route_packets()


def reaches(spaces: Namespaces, one: str, address: str) -> bool:
    """Whether a UDP datagram is answered; ping is not on the list of programs."""
    script = textwrap.dedent("""
        import socket, sys
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plain.settimeout(0.3)
        for attempt in range(3):
            try:
                plain.sendto(b"?", (sys.argv[1], 7))
                print(plain.recv(100).decode())
                break
            except OSError:
                pass
    """)
    return bool(spaces[one].run([sys.executable, "-c", script, address]).strip())


def echo_at(spaces: Namespaces, short: str, log: Path) -> None:
    """Answer UDP datagrams with the address of their sender."""
    script = textwrap.dedent("""
        import socket
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plain.bind(("0.0.0.0", 7))
        print("listening", flush=True)
        while True:
            sender = plain.recvfrom(100)[1]
            plain.sendto(sender[0].encode(), sender)
    """)
    process = spaces[short].start("echo", [sys.executable, "-c", script], log=log)
    process.wait_until(lambda: "listening" in process.tail(), "listening")


def test_what_is_set_in_a_namespace_does_not_show_outside(spaces: Namespaces) -> None:
    space = spaces.add("one")
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    space.sysctl("net.ipv4.ip_forward", 1 - int(before))
    assert space.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).strip() == str(1 - int(before))
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before
    assert len(space.name) <= 32


def test_a_router_carries_packets_until_they_are_cut_and_again_when_mended(spaces: Namespaces, work: Path) -> None:
    joined(spaces)
    echo_at(spaces, "right", work / "echo.log")
    assert reaches(spaces, "left", "10.2.0.2")
    spaces["router"].cut("10.1.0.2", "10.2.0.2")
    assert not reaches(spaces, "left", "10.2.0.2")
    spaces["router"].mend()
    assert reaches(spaces, "left", "10.2.0.2")


def test_a_home_router_hides_its_network_and_lets_nothing_unasked_in(spaces: Namespaces, work: Path) -> None:
    joined(spaces)
    spaces["router"].masquerade("right")
    echo_at(spaces, "right", work / "right.log")
    echo_at(spaces, "left", work / "left.log")
    assert reaches(spaces, "left", "10.2.0.2")
    assert not reaches(spaces, "right", "10.1.0.2")


def test_interface_names_of_wireguard_need_not_be_unique(spaces: Namespaces, work: Path) -> None:
    for short in ("one", "two"):
        space = spaces.add(short)
        process = space.start("wireguard-go", ["wireguard-go", "-f", "wg0"], log=work / f"{short}.log")
        process.wait_until(lambda space=space: "wg0" in space.run(["wg", "show", "interfaces"]), "answering")


def test_a_failing_command_says_what_it_said(spaces: Namespaces) -> None:
    with pytest.raises(NamespaceError, match=r"exit status 1.*nothing0"):
        spaces.add("one").ip("link", "show", "nothing0")


def test_nothing_is_left_of_a_closed_kit_with_running_processes(work: Path) -> None:
    with Namespaces() as kit:
        process = kit.add("one").start("sleep", ["sleep", "600"], log=work / "sleep.log")
        assert len(namespaces_of(kit.id)) == 1
    assert process.returncode is not None
    assert namespaces_of(kit.id) == []
    assert not Path("/run/edgefarm-netns", kit.id).exists()


async def test_what_a_killed_maker_left_is_found_and_nothing_else(spaces: Namespaces, work: Path) -> None:
    kept = spaces.add("kept")
    script = textwrap.dedent("""
        import time
        from pathlib import Path
        from localcluster.netns import Namespaces
        kit = Namespaces()
        process = kit.add("orphan").start("sleep", ["sleep", "600"], log=Path("/dev/null"))
        print(kit.id, process.pid, flush=True)
        time.sleep(600)
    """)
    maker = LocalProcess.start("maker", [sys.executable, "-c", script], log=work / "maker.log")
    maker.wait_until(lambda: len(maker.tail().split()) == 2, "ready")
    identity, child = maker.tail().split()
    clean_left_behind()
    assert namespaces_of(identity) == [f"{identity}-orphan"]  # its maker lives
    maker.signal(signal.SIGKILL)
    maker.wait(5)
    await eventually(lambda: not runs(int(child)), "the maker's process has died with it")
    clean_left_behind()  # another test's kit may have been quicker
    assert namespaces_of(identity) == []
    assert kept.path.exists()
