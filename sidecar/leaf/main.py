"""Composition root of a leaf's sidecar: `python -m sidecar leaf` and `python -m sidecar leaf prepare`."""

from __future__ import annotations

import os
import time

from edgefarm import __version__
from sidecar.health import HealthServer
from sidecar.leaf import settings as configuration
from sidecar.leaf.prepare import prepare
from sidecar.leaf.runner import LeafRunner
from sidecar.log import Log
from sidecar.vault import VaultClient


def run() -> int:
    """Keep one leaf's credentials and configuration fresh until SIGTERM; return the exit status."""
    settings = configuration.load(os.environ)
    log = Log(settings.log_level, time.time)
    try:
        runner = LeafRunner(settings, VaultClient(settings.vault, settings.ca_bundle), log)
        HealthServer(settings.pod.ip, settings.health_port, runner.page).start()
        log.info("started", mode="leaf", network=settings.pod.network, domain=settings.domain, version=__version__)
        return runner.run()
    except OSError as error:
        log.failure("cannot start", error=str(error))
        return 1


def run_prepare() -> int:
    """Give the folder on the node's disk to the containers' user; return the exit status."""
    try:
        prepare(configuration.data_dir(os.environ))
    except OSError as error:
        Log("info", time.time).failure(f"the leaf's folder cannot be prepared: {error}")
        return 1
    return 0
