"""Runs `wrk`: posts one body on keep-alive connections for a while, and measures the servers' processes meanwhile."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_SCRIPT: Final = """
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  file:close()
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "errors": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What one run saw: rates per second, times in milliseconds, CPU in seconds, memory in KiB (of all processes)."""

    requests: int
    seconds: float
    p50: float
    p99: float
    server_cpu: float
    generator_cpu: float
    rss: int

    @property
    def throughput(self) -> float:
        return self.requests / self.seconds

    @property
    def requests_per_cpu_second(self) -> float:
        return self.requests / self.server_cpu

    @property
    def generator_busy(self) -> float:
        """Share of one core that the single-threaded generator used: below 1 it waited for the servers."""
        return self.generator_cpu / self.seconds


def check_installed() -> None:
    """End with a sentence when wrk is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("this benchmark needs wrk: apt-get install -y --no-install-recommends wrk")


def write_script(folder: Path) -> Path:
    """The Lua script that `run` uses."""
    path = folder / "post.lua"
    path.write_text(_SCRIPT)
    return path


def run(script: Path, body: Path, port: int, pids: list[int], *, connections: int, seconds: int) -> Load:
    """Post `body` to `/mutate` of a port on loopback; raises RuntimeError when any request failed."""
    before, own = _cpu(pids), _children_cpu()
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--script", str(script), f"https://127.0.0.1:{port}/mutate?timeout=5s", "--", str(body)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"wrk: {ended.stdout}{ended.stderr}")
    result = json.loads(ended.stdout.splitlines()[-1])
    if result["errors"] or not result["requests"]:
        raise RuntimeError(f"wrk saw failed requests: {ended.stdout}")
    return Load(
        requests=result["requests"],
        seconds=result["microseconds"] / 1e6,
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
        server_cpu=_cpu(pids) - before,
        generator_cpu=_children_cpu() - own,
        rss=memory(pids),
    )


def memory(pids: list[int], kind: str = "Rss") -> int:
    """Memory in KiB: `Rss` all of it, `Anonymous` without mapped files, which is where a leak would show."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                total += int(line.split()[1])
    return total


def _cpu(pids: list[int]) -> float:
    ticks = 0
    for pid in pids:
        # The name in parentheses may hold spaces; utime and stime are the 12th and 13th field after it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
