"""Throughput and latency through the mesh beside bare wireguard-go, how soon a host is in it, and gaps in its paths."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Final

from localcluster.demo.mesh.hosts import Host
from localcluster.demo.mesh.plant import Plant
from localcluster.demo.mesh.topology import SERVICE_ADDRESS
from localcluster.demo.observer import eventually
from localcluster.platform import ROOT
from tests.bench.edge.figures import Case, note
from tests.bench.mesh.bare import Bare

_PORT: Final = 7000
_PINGS: Final = 500
_STARTS: Final = 30


class Tunnels:
    """A running mesh of two edge hosts and a gateway; the third edge host joins while it is watched."""

    def __init__(self, plant: Plant, folder: Path, seconds: float, rounds: int) -> None:
        self._plant = plant
        self._folder = folder
        self._seconds = seconds
        self._rounds = rounds

    async def start(self) -> None:
        """Bring gateways and two hosts up, without a way between the two but the gateways'."""
        note("starting gateways and two edge hosts")
        await self._plant.install()
        self._one, self._other, self._third = self._plant.edges
        self._plant.topology.cut(self._one.node, self._other.node)
        first = [*self._plant.gateways, self._one, self._other]
        for host in first:
            host.start()
        await self._plant.ready(first)
        receiver = [sys.executable, "-m", "tests.bench.mesh.traffic", "receive", str(_PORT)]
        process = self._other.space.start("receiver", receiver, log=self._folder / "receiver.log")
        process.wait_until(lambda: "listening" in process.tail(), "listening")

    async def compare(self) -> None:
        """Both ways between the two hosts, ours and the bare one in turn."""
        bare = Bare(self._plant.topology, self._folder)
        try:
            await self._path("relay")
            await self._compare("relayed", bare.relayed(self._one.node, self._other.node))
            self._plant.topology.mend()
            await self._path("direct")
            await self._compare("direct", bare.direct(self._one.node, self._other.node))
        finally:
            bare.close()

    async def join(self) -> None:
        """From the start of an agent to the first answer of a Service to its host."""
        note("a host joins")
        registered, reached = [], []
        for _ in range(self._rounds):
            self._third.start_abbot()
            pings = self._plant.start_pings(self._third, SERVICE_ADDRESS, every=0.02)
            started = time.monotonic()
            self._third.start_agent()
            await eventually("the device exists", lambda: self._plant.device(self._third), within=60)
            known = time.monotonic()
            await eventually("it is Ready", self._third_is_ready, within=60)
            service = partial(self._plant.answered, self._third.space, [SERVICE_ADDRESS])
            await eventually("a Service answers", service, within=60)
            seen = await self._plant.stop_pings(pings)
            registered.append(known - started)
            reached.append(float(seen["first"]) - known)
            await self._plant.forget(self._third)
        Case("a host joins", bench="mesh").say("agent_start_to_device", "s", registered)
        Case("a host joins", bench="mesh").say("device_to_first_ping", "s", reached)

    async def fall_back(self) -> None:
        """The gap when a direct path is cut: as the demo is set, and with abbot's own defaults."""
        Case("direct path cut, deadAfter 5s", bench="mesh").say("gap", "s", await self._gaps())
        for host in (self._one, self._other):
            host.use_default_patience()
        Case("direct path cut, defaults", bench="mesh").say("gap", "s", await self._gaps())

    async def _gaps(self) -> list[float]:
        gaps = []
        address = await self._plant.mesh_address(self._other)
        for number in range(self._rounds):
            note(f"fall-back {number + 1} of {self._rounds}")
            await self._path("direct")
            pings = self._plant.start_pings(self._one, address, every=0.05)
            await asyncio.sleep(1)
            self._plant.topology.cut(self._one.node, self._other.node)
            await asyncio.sleep(1)  # what is on its way arrives
            await eventually("it answers", lambda: self._plant.answered(self._one.space, [address]), within=60)
            gaps.append(float((await self._plant.stop_pings(pings))["longestGap"]))
            self._plant.topology.mend()
        return gaps

    def process(self) -> None:
        """`abbot process` from its start to its answer, beside an interpreter that does nothing."""
        note("abbot process")
        query = [sys.executable, "-m", "abbot", "-c", str(self._one.config), "process"]
        environment = {**os.environ, "ABBOT_REQ_ACTION": "host:query", "PYTHONPATH": str(ROOT)}
        ours, nothing = [], []
        for _ in range(_STARTS):
            ours.append(_milliseconds(query, environment))
            nothing.append(_milliseconds([sys.executable, "-c", "pass"], environment))
        Case("abbot process", "python -c pass", bench="mesh").say("start_to_answer", "ms", ours, nothing)

    async def _compare(self, way: str, bare: str) -> None:
        mesh, space = await self._plant.mesh_address(self._other), self._one.space
        for address in (mesh, bare):
            await eventually(f"{address} answers", partial(self._plant.answered, space, [address]))
        case = Case(f"two hosts behind NAT, {way}", "bare wireguard-go", bench="mesh")
        rates: dict[str, list[float]] = {mesh: [], bare: []}
        times: dict[str, list[float]] = {mesh: [], bare: []}
        for number in range(self._rounds):
            note(f"{way}: round {number + 1} of {self._rounds}")
            for address in (mesh, bare) if number % 2 == 0 else (bare, mesh):
                rates[address].append(await self._rate(self._one, address))
            for address in (mesh, bare) if number % 2 == 0 else (bare, mesh):
                seen = await self._plant.ping(space, [address], count=_PINGS, every=0.002)
                times[address].append(seen[address]["median"] * 1e6)
        case.say("throughput", "Mbit/s", *([value * 8 / 1e6 for value in rates[each]] for each in (mesh, bare)))
        case.say("latency_p50", "us", times[mesh], times[bare])

    async def _rate(self, host: Host, address: str) -> float:
        sender = [sys.executable, "-m", "tests.bench.mesh.traffic", "send", address, str(_PORT), str(self._seconds)]
        return float(await asyncio.to_thread(host.space.run, sender, timeout=self._seconds + 30))

    async def _path(self, path: str) -> None:
        async def so() -> bool:
            return await self._plant.path(self._one, self._other) == path

        await eventually(f"the path is {path}", so, within=120)

    async def _third_is_ready(self) -> bool:
        return (await self._plant.condition(self._third, "Ready")).get("status") == "True"


def _milliseconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=30)
    return (time.perf_counter() - started) * 1000
