"""`python -m localcluster.nodes`: workload controllers and node runner against one API server, in one process."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path

import structlog

from localcluster.client import Client
from localcluster.network.uplinks import Uplink
from localcluster.node.spec import UPLINK_ANNOTATION, NodeSpec, default_nodes
from localcluster.noderunner import NodeRunner, RunnerSettings
from localcluster.workloads import run_workloads


async def run(kubeconfig: Path, settings: RunnerSettings) -> None:
    """Run until SIGTERM or SIGINT; then all containers are stopped within a few seconds."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Client.from_kubeconfig(kubeconfig) as client, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(run_workloads(client)),
            group.create_task(NodeRunner(client, settings).run()),
        ]
        await stop.wait()
        for task in tasks:
            task.cancel()


def parse_image(text: str) -> tuple[str, list[str]]:
    """`image=command with arguments`; raises ValueError with what to write instead."""
    image, separator, command = text.partition("=")
    if not image or not separator or not command:
        raise ValueError(f"{text!r}: write an image as name=command")
    return image, shlex.split(command)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m localcluster.nodes", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path, required=True, help="volumes, logs and node disks go here")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="make node-1 … node-N")
    parser.add_argument(
        "--node",
        action="append",
        type=NodeSpec.parse,
        default=[],
        metavar="NAME[,LABEL=VALUE…][,taint:KEY=VALUE:EFFECT…]",
        help="make this node",
    )
    parser.add_argument(
        "--image", action="append", type=parse_image, default=[], metavar="NAME=COMMAND", help="one more known image"
    )
    parser.add_argument(
        "--uplink",
        action="append",
        type=Uplink.parse,
        default=[],
        metavar="LISTEN=TARGET",
        help=f"forward TCP (host:port each) for all but the pods of nodes whose annotation {UPLINK_ANNOTATION} is cut",
    )
    parser.add_argument(
        "--cluster-dns",
        action="store_true",
        help="let containers resolve the names of Services and of StatefulSets' pods (mount namespaces)",
    )
    options = parser.parse_args(arguments)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    settings = RunnerSettings(
        data_dir=options.data_dir.resolve(),
        nodes=options.node or default_nodes(options.nodes),
        images=dict(options.image),
        uplinks=options.uplink,
        cluster_dns=options.cluster_dns,
    )
    asyncio.run(run(options.kubeconfig, settings))


if __name__ == "__main__":
    main()
