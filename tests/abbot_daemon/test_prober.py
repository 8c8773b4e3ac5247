"""The prober on real interfaces: a pair of them, with a prober at both ends, as tunnels have."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
import structlog

from abbot.liveness import Cadence
from abbot.metrics import Metrics
from abbot.prober import Prober
from abbot.worker import Worker
from edgefarm.errors import NetworkFailed
from localcluster.netns import Namespace, Namespaces
from tests.abbot_daemon.fakes import FakeHost
from tests.netkit import needs_root_network, spaces

pytestmark = needs_root_network
__all__ = ["spaces"]

OURS, THEIRS, NOBODY = "fe80::1", "fe80::2", "fe80::3"
FAST = Cadence(probe_every=0.1, dead_after=0.4, try_each=0.3)


@dataclass(frozen=True)
class FakePeer:
    public_key: str
    probe_address: str
    endpoint: str = ""
    candidates: tuple[str, ...] = ()
    current_endpoint: str = ""
    last_handshake: float = 1.0


@dataclass(frozen=True)
class FakeTunnel:
    interface: str
    probe_address: str
    peers: tuple[FakePeer, ...]


@dataclass
class TunnelHost(FakeHost):
    """A host with the tunnels that it is given; remembers what it was told."""

    there: list[FakeTunnel] = field(default_factory=list)
    alive: dict[str, frozenset[str]] = field(default_factory=dict)
    rtts: Mapping[str, float] = field(default_factory=dict)
    endpoints: list[str] = field(default_factory=list)
    fails: int = 0

    def tunnels(self) -> Sequence[FakeTunnel]:
        return tuple(self.there)

    def set_alive(self, interface: str, alive: frozenset[str], rtts: Mapping[str, float]) -> None:
        if self.fails:
            self.fails -= 1
            raise NetworkFailed(f"{interface}: not now")
        self.alive[interface] = alive
        self.rtts = rtts

    def set_endpoint(self, interface: str, public_key: str, endpoint: str) -> None:
        self.endpoints.append(endpoint)


@dataclass
class Probed:
    """A prober that runs, and the host that it serves."""

    host: TunnelHost
    prober: Prober
    metrics: Metrics

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not holds():  # noqa: ASYNC110 (the kernel and another thread make it hold)
                await asyncio.sleep(0.01)

    async def until_alive(self, interface: str, *keys: str) -> None:
        await self.until(lambda: self.host.alive.get(interface) == frozenset(keys))


@pytest.fixture
def pair(spaces: Namespaces) -> tuple[Namespace, Namespace]:
    """Two namespaces with an interface `mesh0` each, joined, with our link-local addresses and no others."""
    one, other = spaces.add("one"), spaces.add("other")
    spaces.link(one, "mesh0", other, "mesh0")
    for space, address in ((one, OURS), (other, THEIRS)):
        space.ip("address", "flush", "dev", "mesh0")
        space.ip("address", "add", f"{address}/64", "dev", "mesh0", "nodad")
    return one, other


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def probe(pair: tuple[Namespace, Namespace], host: TunnelHost, script: Callable[[Probed], Awaitable[None]]) -> None:
    """Run `script` beside the prober of `host`; the other end of the pair has one, too. Each runs in its namespace."""
    ended = threading.Event()

    async def ours() -> None:
        try:
            async with probing(host) as probed:
                await script(probed)
        finally:
            ended.set()

    async def theirs() -> None:
        there = FakeTunnel("mesh0", THEIRS, (FakePeer("A", OURS),))
        async with probing(TunnelHost(there=[there])):
            await asyncio.to_thread(ended.wait, 60)

    def entered(space: Namespace, run: Callable[[], Coroutine[None, None, None]]) -> None:
        space.enter()
        asyncio.run(run())

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(entered, space, run) for space, run in zip(pair, (ours, theirs), strict=True)]
        for each in running:
            each.result(60)


@contextlib.asynccontextmanager
async def probing(host: TunnelHost) -> AsyncIterator[Probed]:
    metrics = Metrics()
    prober = Prober(host, Worker("host"), FAST, metrics=metrics, log=structlog.get_logger())
    running = asyncio.create_task(prober.run())
    try:
        yield Probed(host, prober, metrics)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def tunnel(*peers: FakePeer) -> FakeTunnel:
    return FakeTunnel("mesh0", OURS, peers or (FakePeer("K", THEIRS),))


def test_a_peer_that_answers_is_alive_and_dead_when_it_is_cut_off(pair: tuple[Namespace, Namespace]) -> None:
    _, other = pair

    async def script(probed: Probed) -> None:
        await probed.until_alive("mesh0", "K")
        await probed.until(lambda: 0 < probed.host.rtts["K"] < 1)
        assert b'abbot_peer_alive{interface="mesh0",state="alive"} 1.0' in probed.metrics.render()
        other.ip("link", "set", "mesh0", "down")
        await probed.until_alive("mesh0")
        assert b'abbot_peer_alive{interface="mesh0",state="dead"} 2.0' in probed.metrics.render()
        other.ip("link", "set", "mesh0", "up")
        other.ip("address", "replace", f"{THEIRS}/64", "dev", "mesh0", "nodad")
        await probed.until_alive("mesh0", "K")

    probe(pair, TunnelHost(there=[tunnel(FakePeer("K", THEIRS), FakePeer("N", NOBODY))]), script)


def test_an_interface_that_was_made_anew_is_probed_again(pair: tuple[Namespace, Namespace], spaces: Namespaces) -> None:
    one, other = pair

    async def script(probed: Probed) -> None:
        await probed.until_alive("mesh0", "K")
        one.ip("link", "delete", "mesh0")
        await probed.until_alive("mesh0")
        spaces.link(one, "mesh0", other, "mesh0")
        for space, address in ((one, OURS), (other, THEIRS)):
            space.ip("address", "add", f"{address}/64", "dev", "mesh0", "nodad")
        await probed.until_alive("mesh0", "K")

    probe(pair, TunnelHost(there=[tunnel()]), script)


def test_a_peer_that_is_new_or_gone_is_seen_when_it_is_told_to_look(pair: tuple[Namespace, Namespace]) -> None:
    host = TunnelHost()

    async def script(probed: Probed) -> None:
        host.there = [tunnel()]
        probed.prober.look()
        await probed.until_alive("mesh0", "K")
        host.there = [tunnel(FakePeer("N", NOBODY))]
        probed.prober.look()
        await probed.until_alive("mesh0")
        host.there = []
        probed.prober.look()
        await probed.until(lambda: b'interface="mesh0",state="alive"} 0.0' not in probed.metrics.render())

    probe(pair, host, script)


def test_endpoints_are_tried_while_nobody_answers(pair: tuple[Namespace, Namespace]) -> None:
    peer = FakePeer("N", NOBODY, endpoint="a:1", candidates=("b:2", "a:1", "c:3"), current_endpoint="a:1")

    async def script(probed: Probed) -> None:
        await probed.until(lambda: probed.host.endpoints[:4] == ["b:2", "c:3", "a:1", "b:2"])

    probe(pair, TunnelHost(there=[tunnel(peer)]), script)


def test_what_could_not_be_changed_is_tried_again(pair: tuple[Namespace, Namespace]) -> None:

    async def script(probed: Probed) -> None:
        await probed.until_alive("mesh0", "K")

    probe(pair, TunnelHost(there=[tunnel()], fails=3), script)


def test_an_interface_that_is_not_there_harms_no_other(pair: tuple[Namespace, Namespace]) -> None:
    missing = FakeTunnel("mesh9", OURS, (FakePeer("M", THEIRS),))

    async def script(probed: Probed) -> None:
        await probed.until_alive("mesh0", "K")
        assert not probed.host.alive.get("mesh9")

    probe(pair, TunnelHost(there=[missing, tunnel()]), script)
