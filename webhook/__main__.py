"""Composition root of the webhook: `python -m webhook` reads the environment, serves, and drains on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys

import structlog
import uvloop

from edgefarm import __version__
from edgefarm.errors import SettingsError
from edgefarm.telemetry import configure_logging
from webhook.app import Lifecycle, admission_app, health_app
from webhook.metrics import Metrics
from webhook.server import Server
from webhook.settings import VARIABLES, Settings
from webhook.tls import Certificates


async def serve(settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
    """Serve until SIGTERM or SIGINT: first not ready, then (after the drain time) no new connections, then done."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics, lifecycle, has_certificate = Metrics(), Lifecycle(), asyncio.Event()
    certificates = Certificates(settings.certificates, log, metrics.certificate_ends)
    admission = Server.create(
        admission_app(settings.injection, metrics, lifecycle, log), settings.host, settings.port, certificates.context
    )

    def why_not_ready() -> str | None:
        if lifecycle.draining:
            return "shutting down"
        if not certificates.loaded:
            return "waiting for the certificate"
        return None if admission.started else "starting"

    health = Server.create(health_app(metrics, why_not_ready), settings.host, settings.health_port)
    async with asyncio.TaskGroup() as tasks:
        health_task = tasks.create_task(health.serve())
        follower = tasks.create_task(certificates.follow(has_certificate))
        stopping = tasks.create_task(stop.wait())
        starting = tasks.create_task(has_certificate.wait())
        await asyncio.wait((stopping, starting), return_when=asyncio.FIRST_COMPLETED)
        if has_certificate.is_set():
            admission_task = tasks.create_task(admission.serve())
            await asyncio.wait((stopping, admission_task, health_task), return_when=asyncio.FIRST_COMPLETED)
            lifecycle.draining = True
            log.info("draining", seconds=settings.drain_seconds)
            await asyncio.sleep(settings.drain_seconds)
            admission.should_exit = True
            await admission_task
        starting.cancel()
        follower.cancel()
        health.should_exit = True
    log.info("stopped")


def main() -> int:
    """Exit status: 0 after a signal, 2 when the environment is wrong, 3 (uvicorn's) when a port cannot be had."""
    _parse_arguments()
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"webhook: {problem}", file=sys.stderr)
        return 2
    log = configure_logging("webhook", settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, log))
    return 0


def _parse_arguments() -> None:
    width = max(len(name) for name, _, _ in VARIABLES)
    parser = argparse.ArgumentParser(
        prog="webhook",
        description="Mutating admission webhook of edgefarm-network. It is configured by environment variables:",
        epilog="\n".join(f"  {name:<{width}}  {meaning} ({default})" for name, default, meaning in VARIABLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgefarm-network {__version__}")
    parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
