"""Messages through one leaf, and through the relay of a sidecar: throughput and latency beside a plain server."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefarm import names
from localcluster.platform import ROOT
from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import Authority
from tests.bench.edge import load
from tests.bench.edge.figures import Case, cpu_seconds, note
from tests.bench.edge.installation import POLICY_NAME, TENANT, Installation
from tests.bench.edge.plain import PlainServer
from tests.bench.edge.wire import Target, Wire

_SIZES: Final = {"128 B": 128, "16 KB": 16 * 1024}
_LATENCIES: Final = 2000
NODE: Final = "node-0"


@dataclass(frozen=True)
class Side:
    """One of those that are compared: where clients connect, and the process whose CPU time counts."""

    name: str
    target: Target
    pid: int


@dataclass(frozen=True)
class Effort:
    """How long one run is, in seconds, and how many pairs of runs there are."""

    seconds: float
    rounds: int


async def through_a_leaf(installation: Installation, folder: Path, effort: Effort) -> None:
    """Publisher and subscriber on one leaf, beside a server that has TLS and nothing else, and beside one that has the
    two features besides which cost something: a JetStream domain and permissions."""
    authority = installation.world.authority
    plain = PlainServer.start(folder / "single", authority, "plain")
    alike = PlainServer.start_alike(folder / "alike", authority)
    try:
        ours = Side("ours", installation.at_leaf(NODE, installation.sensor()), installation.leafs[NODE].running.pid)
        peers = [
            Side("plain nats-server", plain.target, plain.process.pid),
            Side("plain nats-server with JetStream domain and permissions", alike.target, alike.process.pid),
        ]
        await asyncio.to_thread(_compare, "one leaf", ours, peers, effort)
    finally:
        alike.process.stop()
        plain.process.stop()


async def through_a_relay(installation: Installation, folder: Path, effort: Effort) -> None:
    """Publisher and subscriber both at the relay of a sidecar, beside both at the same server."""
    with _sidecar(installation, folder / "sidecar") as (sidecar, port):
        login, hub = installation.sensor(), installation.world.hub.process.pid
        ours, direct = Side("ours", Target(port, login=login), hub), Side("direct", installation.at_hub(login), hub)
        await asyncio.to_thread(_compare, "relay of a sidecar", ours, [direct], effort)
        note(f"the relay used {cpu_seconds(sidecar.pid):.1f} s of CPU")


def how_fast_the_generator_is(authority: Authority, effort: Effort) -> None:
    """The load with no server in between."""
    certificate, key = authority.issue("generator", ["127.0.0.1"])
    for size, count in _SIZES.items():
        note(f"load generator alone, {size}")
        runs = [
            load.alone(str(certificate), str(key), authority.pem, count, effort.seconds) for _ in range(effort.rounds)
        ]
        Case(f"load generator alone, {size}").say("throughput", "messages/s", [run.rate for run in runs])


#: Of one run: messages/s, messages per second of the server's CPU, and cores that the load generator used.
_Run = tuple[float, float, float]


def _compare(name: str, ours: Side, peers: Sequence[Side], effort: Effort) -> None:
    sides = [ours, *peers]
    for label, size in _SIZES.items():
        case = f"{name}, {label}"
        note(f"{case}: throughput")
        runs: dict[str, list[_Run]] = {side.name: [] for side in sides}
        times: dict[str, list[list[float]]] = {side.name: [] for side in sides}
        for number in range(effort.rounds):
            for side in _in_turn(sides, number):
                runs[side.name].append(_run(side, size, effort.seconds))
        note(f"{case}: latency")
        for number in range(effort.rounds):
            for side in _in_turn(sides, number):
                times[side.name].append(_percentiles(load.latencies(side.target, size, _LATENCIES)))
        for peer in peers:
            for metric, index in (("throughput", 0), ("per_server_cpu_second", 1)):
                values = ([run[index] for run in runs[side.name]] for side in (ours, peer))
                Case(case, peer.name).say(metric, "messages/s", *values)
            for metric, index in (("latency_p50", 49), ("latency_p99", 98)):
                values = ([run[index] for run in times[side.name]] for side in (ours, peer))
                Case(case, peer.name).say(metric, "us", *values)
        Case(case).say("generator_busy", "cores", [run[2] for run in runs[ours.name]])


def _in_turn(sides: Sequence[Side], number: int) -> list[Side]:
    """Who begins takes turns."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]


def _run(side: Side, size: int, seconds: float) -> _Run:
    before = cpu_seconds(side.pid)
    done = load.throughput(side.target, side.target, size, seconds)
    return done.rate, done.messages / (cpu_seconds(side.pid) - before), done.generator_busy


def _percentiles(seconds: list[float]) -> list[float]:
    return [value * 1e6 for value in statistics.quantiles(seconds, n=100)]


@contextmanager
def _sidecar(installation: Installation, folder: Path) -> Iterator[tuple[LocalProcess, int]]:
    """A sidecar in mode nats whose relay leads to the hub, and the relay's port."""
    world, port = installation.world, free_port()
    folder.mkdir(parents=True)
    (folder / "token").write_text(world.reviewer.token(TENANT, POLICY_NAME))
    settings = world.admin.settings
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "EDGEFARM_NETWORK": installation.network,
        "EDGEFARM_NAMESPACE": TENANT,
        "EDGEFARM_SERVICE_ACCOUNT": POLICY_NAME,
        "EDGEFARM_POD_NAME": "bench",
        "EDGEFARM_POD_IP": "127.0.0.1",
        "EDGEFARM_MODE": "nats",
        "EDGEFARM_NATS_PORT": str(port),
        "EDGEFARM_VAULT_ADDR": settings.address,
        "EDGEFARM_VAULT_AUTH_MOUNT": settings.auth_mount,
        "EDGEFARM_VAULT_TRANSIT_MOUNT": settings.transit_mount,
        "EDGEFARM_VAULT_KV_MOUNT": settings.kv_mount,
        "EDGEFARM_CA_BUNDLE": world.authority.pem,
        "EDGEFARM_AUDIENCE": names.DEFAULT_AUDIENCE,
        "EDGEFARM_TOKEN_FILE": str(folder / "token"),
        "EDGEFARM_CREDENTIALS_DIR": str(folder / "credentials"),
        "EDGEFARM_COMPONENTS_DIR": str(folder / "components"),
        "EDGEFARM_HEALTH_PORT": str(free_port()),
    }
    sidecar = LocalProcess.start(
        "sidecar", [sys.executable, "-m", "sidecar"], log=folder / "sidecar.log", env=environment
    )
    try:
        creds = folder / "credentials" / "nats.creds"
        sidecar.wait_until(lambda: creds.exists() and accepts("127.0.0.1", port), "serving with credentials", 60)
        _wait_for_route(Target(port, login=installation.sensor()), sidecar)
        yield sidecar, port
    finally:
        sidecar.stop()


def _wait_for_route(target: Target, sidecar: LocalProcess) -> None:
    def connects() -> bool:
        try:
            with Wire(target):
                return True
        except (OSError, RuntimeError, ValueError):
            return False

    sidecar.wait_until(connects, "connected to a server", 60)
