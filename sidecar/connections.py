"""Looks from outside whether a process is connected to NATS: the kernel's socket tables, and a plain TCP connection."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PROC: Final = Path("/proc")
_ESTABLISHED: Final = "01"
_DEFAULT_PORT: Final = 4222
#: Seconds that a server may take to accept a connection.
TIMEOUT: Final = 0.5


def endpoint(url: str) -> tuple[str, int]:
    """Host and port of a NATS URL such as tls://nats.example:4222."""
    parts = urlsplit(url if "://" in url else f"nats://{url}")
    return parts.hostname or "localhost", parts.port or _DEFAULT_PORT


def reachable(url: str) -> bool:
    """Whether something accepts TCP connections at this URL."""
    with contextlib.suppress(OSError), socket.create_connection(endpoint(url), timeout=TIMEOUT):
        return True
    return False


def established(pid: int, urls: Iterable[str]) -> frozenset[int]:
    """Socket inodes of the process's established connections to the ports of these URLs; empty when it has ended.

    See proc_pid_net(5): columns rem_address (hex address:port), st (01 is established), inode.
    """
    ports = {endpoint(url)[1] for url in urls}
    return _sockets(pid) & frozenset(inode for port, inode in _connections(pid) if port in ports)


def _sockets(pid: int) -> frozenset[int]:
    inodes = set()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(_PROC / str(pid) / "fd"):
            with contextlib.suppress(OSError):  # closed meanwhile
                target = os.readlink(_PROC / str(pid) / "fd" / descriptor)
                if target.startswith("socket:["):
                    inodes.add(int(target[8:-1]))
    return frozenset(inodes)


def _connections(pid: int) -> Iterable[tuple[int, int]]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), (_PROC / str(pid) / "net" / table).open() as lines:
            next(lines, None)
            for line in lines:
                fields = line.split()
                if fields[3] == _ESTABLISHED:
                    yield int(fields[2].rpartition(":")[2], 16), int(fields[9])
