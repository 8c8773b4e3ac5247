"""Two edge hosts and a relay, each with its daemon: which way the traffic takes, and how long it stops."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from edgefarm.abbotproto import abbot_pb2 as pb
from localcluster.netns import Namespace, Namespaces
from localcluster.process import LocalProcess
from tests.abbot_daemon.kit import Abbot, wait_until
from tests.abbot_daemon.stream import INTERVAL
from tests.netkit import needs_root_network

pytestmark = needs_root_network

Peer = pb.DriverWireguard.Peer
MESH = "edgefarm0"
PORT = 51820
BLOCK = "10.201.0.0/16"
MESH_ADDRESS = {"a": "10.201.0.1", "b": "10.201.0.2", "relay": "10.201.0.250"}
ADDRESS = {"a": "198.18.1.2", "b": "198.18.2.2", "relay": "198.18.3.2"}
#: Faster than the defaults (5s, 15s), so that nobody waits for the tests.
PATHS = {"probeEvery": "1s", "deadAfter": "3s"}
#: After `deadAfter` a path is left; what follows is the time of a busy machine.
LONGEST_GAP = 3.0 + 3.0
STREAM = [sys.executable, "-m", "tests.abbot_daemon.stream"]


@dataclass
class Site:
    """A router between three hosts with a daemon each; the tunnels of all are there, directly and over the relay."""

    router: Namespace
    abbots: dict[str, Abbot]
    keys: dict[str, str]

    def direct(self, one: str, other: str, candidates: tuple[str, ...] = ()) -> Peer:
        """`other` as a direct peer of `one`; with candidates, its first endpoint is a wrong one."""
        endpoint = "198.18.9.9:9" if candidates else f"{ADDRESS[other]}:{PORT}"
        return Peer(
            public_key=self.keys[other],
            endpoint=endpoint,
            candidates=candidates,
            allowed_ips=[f"{MESH_ADDRESS[other]}/32"],
            use=Peer.WHEN_ALIVE,
        )

    def relay(self) -> Peer:
        return Peer(public_key=self.keys["relay"], endpoint=f"{ADDRESS['relay']}:{PORT}", allowed_ips=[BLOCK])

    def peer(self, one: str, other: str) -> Peer:
        """What the daemon of `one` tells about `other`."""
        (tunnel,) = self.abbots[one].query("mesh")
        return next(peer for peer in tunnel.wireguard.peers if peer.public_key == self.keys[other])


def tunnel(host: str, *peers: Peer, partial: bool = False) -> pb.HostNetworkInterface:
    return pb.HostNetworkInterface(
        metadata=pb.NetworkInterface(name=MESH, mtu=1380, addresses=[f"{MESH_ADDRESS[host]}/32"]),
        wireguard=pb.DriverWireguard(
            listen_port=PORT, routing=pb.DriverWireguard.Routing(enabled=True), peers=peers, partial=partial
        ),
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("site")
    with Namespaces() as spaces:
        router = spaces.add("router")
        router.route_packets()
        abbots = {}
        for number, name in enumerate(ADDRESS, 1):
            space = spaces.add(name)
            gateway = f"198.18.{number}.1"
            spaces.link(
                space, "eth0", router, f"to-{name}", a_addresses=[f"{ADDRESS[name]}/24"], b_addresses=[f"{gateway}/24"]
            )
            space.ip("route", "add", "default", "via", gateway)
            abbots[name] = Abbot(
                space, work / name, {"paths": PATHS, "repairEvery": "2s", "forwarding": name == "relay"}
            )
            abbots[name].launch()
        for abbot in abbots.values():
            assert abbot.process is not None
            abbot.process.wait_until(abbot.answers, "answering")
        keys = {name: abbot.ensure("mesh", tunnel(name))[0].wireguard.public_key for name, abbot in abbots.items()}
        yield Site(router, abbots, keys)


@pytest.fixture
def joined(site: Site) -> Site:
    """The site with nothing cut, where the relay knows both hosts and they know it, and not each other."""
    site.router.mend()
    hosts = [Peer(public_key=site.keys[name], allowed_ips=[f"{MESH_ADDRESS[name]}/32"]) for name in ("a", "b")]
    site.abbots["relay"].ensure("mesh", tunnel("relay", *hosts))
    for name in ("a", "b"):
        site.abbots[name].ensure("mesh", tunnel(name, site.relay()))
        wait_until(lambda name=name: site.peer(name, "relay").alive, f"{name} is joined to the relay")
    return site


class Stream:
    """A context of numbered datagrams from `a` to `b` and back, and when their answers came."""

    def __init__(self, site: Site, work: Path) -> None:
        self._echo = site.abbots["b"].space.start("echo", [*STREAM, "serve", MESH_ADDRESS["b"]], log=work / "echo")
        self._echo.wait_until(lambda: (work / "echo").read_text() == "ready\n", "ready")
        self._log = work / "stream"
        self._stream: LocalProcess = site.abbots["a"].space.start(
            "stream", [*STREAM, "stream", MESH_ADDRESS["b"]], log=self._log
        )

    def answers(self) -> list[tuple[int, float]]:
        lines = [line.split() for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(int(number), float(when)) for number, when in lines]

    def flows(self) -> bool:
        """Whether an answer came just now."""
        answers = self.answers()
        return bool(answers) and time.monotonic() - answers[-1][1] < 10 * INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.stop()
        self._echo.stop()


def longest_gap(answers: list[tuple[int, float]]) -> float:
    """Seconds."""
    return max(after - before for (_, before), (_, after) in itertools.pairwise(answers))


def lost(answers: list[tuple[int, float]]) -> int:
    numbers = {number for number, _ in answers}
    return max(numbers) - min(numbers) + 1 - len(numbers)


def test_a_direct_path_is_taken_left_and_taken_again(joined: Site, work: Path) -> None:
    site = joined
    with Stream(site, work) as stream:
        wait_until(stream.flows, "flowing over the relay")
        begin = site.peer("relay", "b").tx_bytes
        wait_until(lambda: site.peer("relay", "b").tx_bytes > begin + 1000, "carried by the relay")
        become_direct(site, stream)
        cut_the_direct_path(site, stream)

        before = len(stream.answers())
        site.router.mend()
        wait_until(lambda: both_carry(site), "direct again")
        wait_until(lambda: len(stream.answers()) > before + 20, "flowing directly")
        assert lost(stream.answers()[before:]) <= 2, "the return costs nothing"


def become_direct(site: Site, stream: Stream) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        site.abbots[one].ensure("mesh", tunnel(one, site.relay(), site.direct(one, other)))
    wait_until(lambda: both_carry(site), "direct")
    before = len(stream.answers())
    wait_until(lambda: len(stream.answers()) > before + 20, "flowing directly")
    assert lost(stream.answers()) <= 2, "becoming direct costs nothing"
    assert site.peer("a", "b").rtt_us > 0


def cut_the_direct_path(site: Site, stream: Stream) -> None:
    site.router.cut(ADDRESS["a"], ADDRESS["b"])
    cut_at = time.monotonic()
    wait_until(lambda: not site.peer("a", "b").alive and not site.peer("b", "a").alive, "dead")
    assert not site.peer("a", "b").carrying
    wait_until(stream.flows, "flowing over the relay again")
    assert time.monotonic() - cut_at < 30
    gap = longest_gap(stream.answers())
    assert gap < LONGEST_GAP, f"nothing came for {gap:g} s"


def both_carry(site: Site) -> bool:
    """Whether the direct path is used in both directions."""
    return site.peer("a", "b").carrying and site.peer("b", "a").carrying


def test_a_direct_path_is_found_at_a_candidate(joined: Site) -> None:
    site = joined
    right = f"{ADDRESS['b']}:{PORT}"
    # Only one side tries: the other one has no endpoint at all, and learns it from the handshake.
    quiet = site.direct("b", "a")
    quiet.endpoint = ""
    site.abbots["b"].ensure("mesh", tunnel("b", site.relay(), quiet))
    site.abbots["a"].ensure("mesh", tunnel("a", site.relay(), site.direct("a", "b", (right,))))
    wait_until(lambda: site.peer("a", "b").carrying, "direct", seconds=45)
    # The last candidate may have been tried just before an answer came by another one.
    wait_until(lambda: site.peer("a", "b").endpoint == right, "known to the one that tries")
    wait_until(lambda: site.peer("b", "a").endpoint == f"{ADDRESS['a']}:{PORT}", "known to the other one")


def test_without_an_answer_a_direct_peer_never_carries(joined: Site, work: Path) -> None:
    site = joined
    site.router.cut(ADDRESS["a"], ADDRESS["b"])
    for one, other in (("a", "b"), ("b", "a")):
        site.abbots[one].ensure("mesh", tunnel(one, site.relay(), site.direct(one, other)))
    with Stream(site, work) as stream:
        wait_until(lambda: len(stream.answers()) > 60, "flowing over the relay")
        assert lost(stream.answers()) <= 1
    assert not site.peer("a", "b").carrying


def test_a_tunnel_that_was_deleted_is_mended_and_alive_again(joined: Site) -> None:
    site = joined
    site.abbots["a"].space.ip("link", "delete", MESH)
    wait_until(lambda: MESH in site.abbots["a"].links(), "mended")
    wait_until(lambda: site.peer("a", "relay").alive, "alive again")


def test_a_restarted_daemon_joins_again_by_itself(joined: Site, work: Path) -> None:
    site = joined
    abbot = site.abbots["a"]
    key = site.keys["a"]
    abbot.kill()
    # Its wireguard-go goes with it, and the interface with that: nothing is left but the data.
    wait_until(lambda: MESH not in abbot.links(), "gone")
    abbot.start()
    wait_until(lambda: site.peer("a", "relay").alive, "alive again")
    assert abbot.query("mesh")[0].wireguard.public_key == key
    with Stream(site, work) as stream:
        wait_until(stream.flows, "flowing")
