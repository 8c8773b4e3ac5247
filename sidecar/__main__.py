"""Composition root of the sidecar: `python -m sidecar` runs it, `python -m sidecar probe` asks a running one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgefarm import __version__
from edgefarm.errors import SettingsError

if TYPE_CHECKING:  # every command imports what it needs
    from sidecar.runner import Services
    from sidecar.settings import Settings

_USAGE = """\
usage: python -m sidecar            get NATS credentials for this pod and keep them fresh (mode dapr: run daprd, too)
       python -m sidecar once       get the first credentials, then end: an init container for the application
       python -m sidecar probe      ask the running sidecar whether it is ready; exit status 0 when it is
       python -m sidecar wait       end when the running sidecar is ready: a postStart hook for ordinary containers
       python -m sidecar leaf       get a leaf NATS server's credentials and configuration and keep them fresh
       python -m sidecar leaf prepare   give the leaf's folder on the node's disk to its user, then end
       python -m sidecar --version
Everything else comes from the environment: see docs/sidecar.md.
"""
_PROBE_TIMEOUT = 2.0
_WAIT_INTERVAL = 0.2


def main(arguments: list[str]) -> int:
    """Run one command; return the exit status (2: used or configured wrongly)."""
    match arguments:
        case []:
            return _guarded(_run)
        case ["once"]:
            return _guarded(_once)
        case ["probe"]:
            return _guarded(_probe)
        case ["wait"]:
            return _guarded(_wait)
        case ["leaf"]:
            return _guarded(_leaf)
        case ["leaf", "prepare"]:
            return _guarded(_prepare_leaf)
        case ["--version"]:
            print(__version__)
            return 0
        case [*_, "--help" | "-h"]:
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
    vault = VaultClient(settings.vault, settings.ca_bundle)
    try:
        runner = Runner(settings, vault, CredentialStore(settings.credentials_dir), _services(settings), log)
        HealthServer(settings.pod.ip, settings.health_port, runner.page).start()
        log.info("started", mode=settings.mode, network=settings.pod.network, version=__version__)
        return runner.run()
    except OSError as error:
        log.failure("cannot start", error=str(error))
        return 1


def _services(settings: Settings) -> Services:
    from sidecar.runner import Services
    from sidecar.settings import MODE_DAPR

    if settings.mode == MODE_DAPR:
        from sidecar.dapr import Daprd

        return Services(daprd=Daprd(settings.dapr, settings.ca_bundle, settings.pod.nats_user))
    if settings.relay is not None:
        from sidecar.relay import Relay

        return Services(relay=Relay(settings.relay.listen_address, settings.relay.port))
    return Services()


def _once() -> int:
    # Neither daprd nor a health port: the sidecar's own container brings them.
    from sidecar import settings as configuration
    from sidecar.log import Log
    from sidecar.runner import Runner, Services
    from sidecar.store import CredentialStore
    from sidecar.vault import VaultClient

    settings = configuration.load(os.environ)
    log = Log(settings.log_level, time.time)
    vault = VaultClient(settings.vault, settings.ca_bundle)
    try:
        return Runner(settings, vault, CredentialStore(settings.credentials_dir), Services(), log, once=True).run()
    except OSError as error:
        log.failure("cannot start", error=str(error))
        return 1


def _leaf() -> int:
    from sidecar.leaf.main import run

    return run()


def _prepare_leaf() -> int:
    from sidecar.leaf.main import run_prepare

    return run_prepare()


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


def _wait() -> int:
    from sidecar.health import fetch
    from sidecar.settings import health_address

    host, port = health_address(os.environ)
    while True:
        try:
            if fetch(host, port, "/readyz", _PROBE_TIMEOUT).status == 200:
                return 0
        except OSError:
            pass  # it is about to listen
        time.sleep(_WAIT_INTERVAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
