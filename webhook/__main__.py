"""Composition root of the webhook: `python -m webhook` reads the environment, serves, and drains on SIGTERM.

`python -m webhook inject` is the offline command beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any, Final

import structlog
import uvloop

from edgefarm import __version__
from edgefarm.errors import SettingsError
from edgefarm.telemetry import configure_logging
from webhook import mounted
from webhook.app import ADMISSION_LIMITS, HEALTH_LIMITS, AdmissionApplication, HealthApplication
from webhook.authorities import Authorities
from webhook.decision_log import DecisionLog
from webhook.metrics import Metrics
from webhook.server import Server
from webhook.settings import VARIABLES, Settings
from webhook.tls import Certificates

_PROGRAM: Final = "webhook"
_GC_THRESHOLD: Final = 20_000


async def serve(settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
    """Serve until SIGTERM or SIGINT: first not ready, then (after the drain time) no new connections, then done.

    Raises OSError when a port cannot be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    metrics, ready = Metrics(), asyncio.Event()
    certificates = Certificates(settings.certificates, log, metrics.certificate_ends)
    decisions = DecisionLog(sys.stderr.buffer, _PROGRAM, enabled=settings.log_level in ("debug", "info"))
    application = AdmissionApplication(settings.injection, metrics, decisions, log)
    admission = Server(application, ADMISSION_LIMITS, certificates.context)

    def authorities_are(text: str) -> None:
        application.settings = dataclasses.replace(application.settings, ca_bundle=text)

    authorities = Authorities(settings.ca_file, log, authorities_are)

    def why_not_ready() -> str | None:
        if stop.is_set():
            return "shutting down"
        if not certificates.loaded:
            return "waiting for the certificate"
        if not authorities.loaded:
            return authorities.problem or "starting"
        return None if admission.started else "starting"

    health = Server(HealthApplication(metrics, why_not_ready), HEALTH_LIMITS)
    await health.start(settings.health_host, settings.health_port)
    follower = asyncio.create_task(mounted.follow((certificates, authorities), ready))
    await _first(stop.wait(), ready.wait())
    if not stop.is_set():
        # Shared, so that a new replica can start at the address of the one that it follows.
        await admission.start(settings.host, settings.port, shared=True)
        await stop.wait()
        log.info("draining", seconds=settings.drain_seconds)
        admission.drain()
        await asyncio.sleep(settings.drain_seconds)
        await admission.stop()
    follower.cancel()
    await health.stop()
    decisions.flush()
    log.info("stopped")


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Return when one of them has."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def main() -> int:
    """Exit status: 0 after a signal, 2 when the environment is wrong, 3 when a port cannot be had."""
    if sys.argv[1:2] == ["inject"]:
        from webhook import inject_command

        # `| head` ends us quietly, as it does other filters.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        return inject_command.main(sys.argv[2:])
    _parse_arguments()
    try:
        settings = Settings.read(os.environ)
    except SettingsError as error:
        for problem in error.problems:
            print(f"webhook: {problem}", file=sys.stderr)
        return 2
    log = configure_logging(_PROGRAM, settings.log_level)
    # A review makes thousands of objects without a cycle: looking for cycles every 700 of them only costs time.
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, log))
    except OSError as error:
        log.error("cannot listen", problem=str(error))  # noqa: TRY400 - it names the address
        return 3
    return 0


def _parse_arguments() -> None:
    width = max(len(name) for name, _, _ in VARIABLES)
    parser = argparse.ArgumentParser(
        prog="webhook",
        description="Mutating admission webhook of edgefarm-network, configured by environment variables (see below). "
        "`webhook inject --help` explains the offline command.",
        epilog="\n".join(f"  {name:<{width}}  {meaning} ({default})" for name, default, meaning in VARIABLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgefarm-network {__version__}")
    parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
