"""The nats-server beside us, seen from outside: its process, its monitoring, and the hub that it connects to."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sidecar.health import fetch
from sidecar.leaf.disk import Disk, look_at_disk
from sidecar.leaf.settings import ServerSettings

_PROC: Final = Path("/proc")
_PROGRAM: Final = "nats-server"
_LEAF_PORT: Final = 7422
#: Seconds that the server beside us may take to answer, and the hub to accept a connection.
_TIMEOUT: Final = 2.0


@dataclass(frozen=True)
class Seen:
    """What one look showed.

    `metadata` is what the server's configuration says of itself, `connected` are the accounts whose connection to the
    hub is up; both are None when no server answers. `certificate` are the listener's files; None: they are not there.
    """

    metadata: Mapping[str, str] | None
    connected: frozenset[str] | None
    hub_reachable: bool
    certificate: bytes | None
    disk: Disk


def look(server: ServerSettings, hub: tuple[str, ...]) -> Seen:
    """Look at everything; takes some seconds where nothing answers."""
    connected = _connected(server)
    # Only who is not connected needs to know whether that is the hub's fault.
    missing = connected is not None and len(connected) < 2
    return Seen(
        metadata=_metadata(server),
        connected=connected,
        hub_reachable=not missing or any(map(_reachable, hub)),
        certificate=read_certificate(server),
        disk=look_at_disk(server),
    )


def read_certificate(server: ServerSettings) -> bytes | None:
    """Certificate and key of the listener as they are now; None where there are none (yet)."""
    if server.tls_dir is None:
        return None
    try:
        return b"".join((server.tls_dir / name).read_bytes() for name in ("tls.crt", "tls.key"))
    except OSError:
        return None


def tell(server: ServerSettings, number: int) -> str | None:
    """Send a signal to the nats-server that was started with our configuration; None, or why that cannot be done."""
    try:
        pid = int(server.pid_file.read_text())
    except FileNotFoundError:
        return "nats-server is not running yet"
    except (OSError, ValueError):
        return f"{server.pid_file} holds no process id"
    try:
        # A handle of the process itself: should it end meanwhile, no later one of the same id gets the signal.
        handle = os.pidfd_open(pid)
    except OSError:
        return "nats-server is not running"
    try:
        if not _is_ours(pid, server.configuration):
            return f"process {pid} in {server.pid_file} is not the nats-server of this leaf"
        signal.pidfd_send_signal(handle, number)
    except OSError as error:
        return f"nats-server cannot be signalled: {error}"
    finally:
        os.close(handle)
    return None


def _is_ours(pid: int, configuration: Path) -> bool:
    try:
        program = (_PROC / str(pid) / "comm").read_text().strip()
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return program == _PROGRAM and os.fsencode(configuration) in arguments


def _metadata(server: ServerSettings) -> Mapping[str, str] | None:
    page = _page(server, "/varz")
    found = page.get("metadata", {}) if page is not None else None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else None


def _connected(server: ServerSettings) -> frozenset[str] | None:
    page = _page(server, "/leafz")
    if page is None:
        return None
    leafs = page.get("leafs") or []
    return frozenset(str(leaf.get("account")) for leaf in leafs if isinstance(leaf, dict))


def _page(server: ServerSettings, path: str) -> dict[str, Any] | None:
    try:
        page = fetch(server.host, server.monitor_port, path, _TIMEOUT)
        body = json.loads(page.body)
    except (OSError, ValueError):
        return None
    return body if page.status == 200 and isinstance(body, dict) else None


def _reachable(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or _LEAF_PORT), timeout=_TIMEOUT).close()
    except (OSError, ValueError):
        return False
    return True
