"""The disk of the leaf's node: whether JetStream has given up writing to it, and whether a restart would help.

After a failed write, mostly because the disk is full, nats-server (2.15) neither writes to that stream again nor
answers its publishers until it is started anew, however much room there is by then.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Final

from sidecar.health import fetch
from sidecar.leaf.settings import ServerSettings

#: Bytes that must be free for a restart to be worth it; on a small disk a twentieth of it.
ROOM: Final = 16 * 2**20
_SMALL_PART: Final = 20
#: Seconds that the server beside us may take to answer.
_TIMEOUT: Final = 2.0
#: So it words, and only in this way tells, that a stream is no longer written.
_WRITE_ERROR: Final = "write error"


@dataclass(frozen=True)
class Disk:
    """What was seen. `failure` is why a stream is no longer written, in the server's words; empty: none is known."""

    failure: str = ""
    free: int = 0
    size: int = 0

    @property
    def calls_for_restart(self) -> bool:
        """Whether a stream is no longer written although there is room for it."""
        return bool(self.failure) and self.free >= min(ROOM, self.size // _SMALL_PART)


def look_at_disk(server: ServerSettings) -> Disk:
    """Ask the server, and the file system of its data."""
    failure = _failure(server)
    if not failure:
        return Disk()
    try:
        found = os.statvfs(server.data_dir)
    except OSError:
        return Disk(failure)
    return Disk(failure, free=found.f_bavail * found.f_frsize, size=found.f_blocks * found.f_frsize)


def _failure(server: ServerSettings) -> str:
    try:
        page = json.loads(fetch(server.host, server.monitor_port, "/healthz", _TIMEOUT).body)
    except (OSError, ValueError):
        return ""
    error = page.get("error") if isinstance(page, dict) else None
    return error if isinstance(error, str) and _WRITE_ERROR in error else ""
