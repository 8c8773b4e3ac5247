"""Composition root of the sidecar: `python -m sidecar` runs it, `python -m sidecar probe` asks a running one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from edgefarm import __version__
from edgefarm.errors import SettingsError

_USAGE = """\
usage: python -m sidecar            get NATS credentials for this pod and keep them fresh (mode dapr: run daprd, too)
       python -m sidecar probe      ask the running sidecar whether it is ready; exit status 0 when it is
       python -m sidecar --version
Everything else comes from the environment: see docs/sidecar.md.
"""
_PROBE_TIMEOUT = 2.0


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status (2: used or configured wrongly)."""
    match arguments:
        case []:
            return _guarded(_run)
        case ["probe"]:
            return _guarded(_probe)
        case ["--version"]:
            print(__version__)
            return 0
        case ["--help" | "-h"]:
            print(_USAGE, end="")
            return 0
    print(_USAGE, end="", file=sys.stderr)
    return 2


def _guarded(command: Callable[[], int]) -> int:
    try:
        return command()
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2


def _run() -> int:
    from sidecar import settings as configuration
    from sidecar.health import HealthServer
    from sidecar.log import Log
    from sidecar.runner import Runner
    from sidecar.store import CredentialStore
    from sidecar.vault import VaultClient

    settings = configuration.load(os.environ)
    log = Log(settings.log_level, time.time)
    daprd = None
    if settings.mode == configuration.MODE_DAPR:
        from sidecar.dapr import Daprd

        daprd = Daprd(settings.dapr, settings.ca_bundle, settings.pod.nats_user)
    vault = VaultClient(settings.vault, settings.ca_bundle)
    runner = Runner(settings, vault, CredentialStore(settings.credentials_dir), daprd, log)
    try:
        HealthServer(settings.pod.ip, settings.health_port, runner.page).start()
        log.info("started", mode=settings.mode, network=settings.pod.network, version=__version__)
        return runner.run()
    except OSError as error:
        log.failure("cannot start", error=str(error))
        return 1


def _probe() -> int:
    from sidecar.health import fetch
    from sidecar.settings import health_address

    host, port = health_address(os.environ)
    try:
        page = fetch(host, port, "/readyz", _PROBE_TIMEOUT)
    except OSError as error:
        print(f"the sidecar does not answer: {error}", file=sys.stderr)
        return 1
    print(page.body, end="")
    return 0 if page.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
