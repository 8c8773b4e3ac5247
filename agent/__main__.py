"""Composition root of the node agent: `python -m agent`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import ssl
import sys
import time
from collections.abc import Mapping, Sequence

from agent.settings import DEFAULT_FILE, Settings, read_settings
from edgefarm import __version__
from edgefarm.errors import SettingsError

_DESCRIPTION = """\
The node agent of edgefarm-network: runs the network command (abbot) of its host for the reconciler.

It logs in to Vault with the service account of its pod, connects to NATS, tells the reconciler on which node it runs,
and then hands each request to the command on stdin and what the command writes to stdout back to the reconciler.
It runs until SIGTERM, and waits for whatever is not there yet.
"""

_EPILOG = f"""\
environment:
  EDGEFARM_VAULT_ADDR         address of Vault or OpenBao, e.g. https://vault.example:8200 (required)
  EDGEFARM_VAULT_AUTH_MOUNT, EDGEFARM_VAULT_TRANSIT_MOUNT, EDGEFARM_VAULT_KV_MOUNT, EDGEFARM_VAULT_NAMESPACE
                              where the reconciler keeps its things; defaults as the reconciler's
  EDGEFARM_NODE_NAME          name of the node, for logs and for the list of NATS connections (required)
  EDGEFARM_NAMESPACE          the controller namespace (network)
  EDGEFARM_SERVICE_ACCOUNT    of the pod: network-agent (default), or network-gateway for gateways of the mesh
  EDGEFARM_CA_BUNDLE          PEM text that Vault and NATS are verified against (default: the system's)
  EDGEFARM_TOKEN_FILE         projected token for Vault
  EDGEFARM_AGENT_TOKEN_FILE   projected token that proves the node to the reconciler
  EDGEFARM_AGENT_CONFIG       the file below ({DEFAULT_FILE})
  EDGEFARM_HEALTH_HOST, EDGEFARM_HEALTH_PORT   of /healthz, /readyz and /metrics (127.0.0.1, 3590)
  EDGEFARM_LOG_LEVEL          debug, info, warning or error (info)

file:
  network:
    enabled: true             # false (default): every request is answered "not supported"
    abbotExec: [/usr/bin/abbot, -c, /etc/abbot/config.yaml, process]
    stdinEncoding: base64     # or raw
    stdoutEncoding: base64    # or raw
    timeout: 30s              # after which the command and all that it started is killed
    maxOutput: 16Mi
    concurrency: 4            # commands at the same time
  containers: false           # whether this host runs containers whose network the command makes

Settings that are missing or wrong end it with status 2 and one line for each. More is in docs/agent.md.
"""


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Parse the command line and run; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m agent",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgefarm-network {__version__}")
    parser.parse_args(arguments)
    try:
        return asyncio.run(_run(read_settings(environ), environ))
    except SettingsError as error:
        for problem in error.problems:
            print(f"agent: {problem}", file=sys.stderr)
        return 2


async def _run(settings: Settings, environ: Mapping[str, str]) -> int:
    # Imported here: they cost time that `--help` and wrong settings need not pay.
    from agent.bus import Host, Services
    from agent.credentials import Login
    from agent.executor import Executor
    from agent.health import HealthServer
    from agent.metrics import Metrics
    from agent.presence import Presence
    from agent.service import Agent
    from edgefarm.telemetry import configure_logging
    from edgefarm.vault import Vault

    log = configure_logging("agent", settings.log_level).bind(node=settings.identity.node)
    metrics = Metrics()
    presence = Presence(metrics, log=log)
    host = Host(
        platform.node() or settings.identity.node, f"edgefarm-network {__version__}", settings.identity.proof_token
    )
    services = Services(host, Executor(settings.network, environ), presence, metrics, log)
    try:
        tls = ssl.create_default_context(cadata=settings.ca_bundle)
        health = HealthServer(settings.health_host, settings.health_port, presence, metrics)
    except ssl.SSLError as error:
        raise SettingsError(["EDGEFARM_CA_BUNDLE holds no certificate that can be read"]) from error
    except OSError as error:
        where = f"{settings.health_host}:{settings.health_port}"
        raise SettingsError([f"EDGEFARM_HEALTH_PORT: cannot listen on {where}: {error.strerror}"]) from error
    vault = Vault(settings.vault)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    log.info("started", version=__version__, network=settings.network.enabled, containers=settings.network.containers)
    try:
        await Agent(Login(vault, settings.identity), tls, services, clock=time.time).run(stop)
    finally:
        health.close()
        vault.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
