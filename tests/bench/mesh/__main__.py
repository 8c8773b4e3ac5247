"""What the mesh costs beside bare wireguard-go, and how long its changes take. Prints JSON lines; progress on stderr.

Everything runs in network namespaces of its own, with the real reconciler, OpenBao, NATS, agents and abbots. The peer
of throughput and latency is wireguard-go alone between the same namespaces, measured in turn with ours.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from localcluster import netns
from localcluster.daprd import write_launcher
from localcluster.demo.mesh.plant import Plant, platform_options
from localcluster.demo.mesh.topology import Topology, topology
from localcluster.demo.observer import Observer
from localcluster.platform import Platform
from tests.bench.edge.figures import note
from tests.bench.mesh import plan
from tests.bench.mesh.tunnels import Tunnels

_CASES: Final = {
    "plan": "deciding and bytes of a join in a mesh of 10, 1,000 and 10,000 hosts (simulated; needs neither root)",
    "tunnel": "throughput and latency, relayed and direct, beside bare wireguard-go",
    "join": "from an agent's start to its device, and from there to the first ping",
    "gap": "how long nothing arrives when a direct path is cut, with deadAfter 5s and with the default of 15s",
    "process": "`abbot process` from its start to its answer, beside `python -c pass`",
}


def main() -> int:
    """Parse the command line and run; the exit status."""
    arguments = _parse()
    # asyncio warns whenever a peer ends a TLS connection; the lines on the screen are figures.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    wanted: Collection[str] = arguments.cases
    if "plan" in wanted:
        plan.measure()
    if set(wanted) == {"plan"}:
        return 0
    if (lacking := netns.missing()) is not None:
        print(f"only the case plan was measured: {lacking}", file=sys.stderr)
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="edgefarm-bench-", ignore_cleanup_errors=True) as folder,
        topology() as made,
    ):
        made["cluster"].enter()
        try:
            asyncio.run(_run(arguments, Path(folder), made))
        except (asyncio.CancelledError, KeyboardInterrupt):
            print("interrupted; everything that was started has been stopped", file=sys.stderr)
            return 130
    return 0


def _parse() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<10} {about}" for name, about in _CASES.items())
    parser = argparse.ArgumentParser(
        prog="make bench-mesh ARGS=",
        description=f"{__doc__}\ncases:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=list(_CASES), default=list(_CASES), metavar="CASE")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one run of throughput (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs; medians are printed (default: 5)")
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.rounds) <= 0:
        parser.error("seconds and rounds must be more than 0")
    return arguments


async def _run(arguments: argparse.Namespace, folder: Path, made: Topology) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    wanted: Collection[str] = arguments.cases
    note("starting the platform")
    async with Platform(folder, platform_options(write_launcher(folder))) as platform:
        await platform.start()
        observer = Observer.of(platform)
        tunnels = Tunnels(Plant(observer, made), folder, arguments.seconds, arguments.rounds)
        try:
            await tunnels.start()
            if "process" in wanted:
                await asyncio.to_thread(tunnels.process)
            if "tunnel" in wanted:
                await tunnels.compare()
            made.mend()
            if "gap" in wanted:
                await tunnels.fall_back()
            if "join" in wanted:
                await tunnels.join()
        finally:
            await observer.system.close()
    note("done")


if __name__ == "__main__":
    sys.exit(main())
