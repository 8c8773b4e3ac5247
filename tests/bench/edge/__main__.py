"""What leafs and streams cost, and how long changes take to arrive. Prints JSON lines; progress goes to stderr.

Everything runs on loopback and is gone afterwards. Ours is an installation with the real reconciler, whose leafs have
the configuration, the users and the certificates that they have in production. Peers are plain nats-servers over TLS,
measured in turn with ours. docs/edge-performance.md says how to read the figures.
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

from localcluster.stack import Authority
from tests.bench.edge import arrival, core, links
from tests.bench.edge.figures import note
from tests.bench.edge.installation import installed

#: What there is, in the order in which it is measured.
_CASES: Final = {
    "generator": "the load generator alone, without a server: the most that could be measured",
    "leaf": "messages/s, CPU and latency through one leaf, beside a plain nats-server with TLS",
    "relay": "the same through the relay of a sidecar, beside direct connections to the same server",
    "source": "messages/s from a stream at the edge into one in the hub, beside two plain linked servers",
    "outage": "how soon and how fast the hub has what was stored during an outage, beside the same two",
    "many": "from a Stream applied to present in the domains of --leafs leafs, beside bare requests",
    "platform": "from a label on a node to its leaf connected, from a Stream applied to present on 3 nodes",
}


def main() -> int:
    """Parse the command line and run; the exit status."""
    arguments = _parse()
    # asyncio warns whenever a peer ends a TLS connection; the lines on the screen are figures.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="edgefarm-bench-", ignore_cleanup_errors=True) as folder:
        try:
            asyncio.run(_run(arguments, Path(folder)))
        except (asyncio.CancelledError, KeyboardInterrupt):
            print("interrupted; everything that was started has been stopped", file=sys.stderr)
            return 130
    return 0


def _parse() -> argparse.Namespace:
    listed = "\n".join(f"  {name:<10} {about}" for name, about in _CASES.items())
    parser = argparse.ArgumentParser(
        prog="make bench-edge ARGS=",
        description=f"{__doc__}\ncases:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", nargs="+", choices=list(_CASES), default=list(_CASES), metavar="CASE")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run of throughput (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs; medians are printed (default: 5)")
    parser.add_argument("--messages", type=int, default=20_000, help="stored in one run of a stream (default: 20000)")
    parser.add_argument("--outage", type=float, default=5.0, help="seconds without uplink, at least (default: 5)")
    parser.add_argument("--leafs", type=int, default=50, help="nats-servers of the case many, 25 MB each (default: 50)")
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.rounds, arguments.messages, arguments.outage, arguments.leafs) <= 0:
        parser.error("seconds, rounds, messages, outage and leafs must be more than 0")
    arguments.messages = -(-arguments.messages // 100) * 100  # they are published in batches
    return arguments


async def _run(arguments: argparse.Namespace, folder: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    wanted: Collection[str] = arguments.cases
    effort = core.Effort(arguments.seconds, arguments.rounds)
    authority = Authority.create(folder / "pki")
    if "generator" in wanted:
        await asyncio.to_thread(core.how_fast_the_generator_is, authority, effort)
    if {"leaf", "relay", "source", "outage", "many"} & set(wanted):
        note("starting an installation with one leaf")
        async with installed(folder, authority) as installation:
            await installation.start_leafs([core.NODE])
            if "leaf" in wanted:
                await core.through_a_leaf(installation, folder, effort)
            if "relay" in wanted:
                await core.through_a_relay(installation, folder, effort)
            if {"source", "outage"} & set(wanted):
                amount = links.Amount(arguments.messages, arguments.rounds, arguments.outage)
                await links.measure(installation, folder, amount, flow="source" in wanted, outage="outage" in wanted)
            if "many" in wanted:
                await installation.restart_leaf(core.NODE)  # straight to the hub again
                await arrival.in_many_domains(installation, arguments.leafs, min(3, arguments.rounds))
    if "platform" in wanted:
        await arrival.on_a_platform(folder / "platform", min(3, arguments.rounds))
    note("done")


if __name__ == "__main__":
    sys.exit(main())
