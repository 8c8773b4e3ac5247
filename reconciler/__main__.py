"""Composition root of the reconciler: `python -m reconciler [run|bootstrap]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from edgefarm import __version__
from edgefarm.errors import SettingsError
from reconciler import bootstrap_command
from reconciler.settings import Settings, read_settings

_DESCRIPTION = """\
The reconciler of edgefarm-network: makes NATS accounts, keys in Vault and grants out of Network and Policy objects.

It reads its environment (docs/architecture.md) and the ConfigMap `network` of its namespace, and waits for what is
not there yet. Before the first start, run `bootstrap` once with an administrator's Vault token.
"""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Parse the command line and run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m reconciler", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"edgefarm-network {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("run", help="run until SIGTERM (the default)")
    bootstrap_command.add_arguments(
        commands.add_parser("bootstrap", help="set up Vault and print the configuration of the main NATS servers")
    )
    args = parser.parse_args(arguments)
    if args.command == "bootstrap":
        return bootstrap_command.run(args, environ)
    try:
        return asyncio.run(_run(read_settings(environ)))
    except SettingsError as error:
        for problem in error.problems:
            print(f"reconciler: {problem}", file=sys.stderr)
        return 2


async def _run(settings: Settings) -> int:
    # Imported here, because these cost half a second that `bootstrap` and `--help` need not pay.
    from edgefarm.telemetry import configure_logging
    from reconciler.adapters.kube import KubeClient
    from reconciler.controllers import (
        agents_account,
        configuration,
        edge_device,
        edge_network,
        nack,
        network,
        pod_advisor,
        policy,
        stream,
        stream_sweep,
        webhook_certificate,
    )
    from reconciler.controllers.servers import nats, trust, vault
    from reconciler.metrics import Metrics
    from reconciler.process import Process

    builders = (
        configuration.build,
        trust.build,
        vault.build,
        nats.build,
        network.build,
        policy.build,
        pod_advisor.build,
        edge_network.build,
        stream.build,
        stream_sweep.build,
        nack.build,
        webhook_certificate.build,
        agents_account.build,
        edge_device.build,
    )
    log = configure_logging("reconciler", settings.log_level)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics()
    kube = await KubeClient.connect(settings.kubernetes, on_request=metrics.kubernetes_request)
    try:
        return await Process(settings, kube, metrics, log=log).run(builders, stop)
    finally:
        await kube.close()


if __name__ == "__main__":
    sys.exit(main())
