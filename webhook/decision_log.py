"""One line of the log per decision, cheap enough for every request: never pod contents, and no flush per line."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from edgefarm.secrets import mask_secrets
from webhook.decide import Decision, Deny
from webhook.review import Request


class DecisionLog:
    """Writes the lines that structlog would write, but all of one turn of the event loop at once.

    At thousands of admissions a second structlog's processors would cost more than the admissions.
    """

    def __init__(self, stream: BinaryIO, program: str, *, enabled: bool = True) -> None:
        """`enabled` is False when the log's level is above info."""
        self._stream, self._program, self._enabled = stream, program, enabled
        self._lines: list[bytes] = []

    def add(self, request: Request, outcome: str, decision: Decision, seconds: float) -> None:
        """Note one decision; `seconds` is what it took."""
        if not self._enabled:
            return
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        line = {
            "program": self._program,
            "outcome": outcome,
            "reason": decision.reason.value,
            # Not the sentence: it may quote the pod, and only the pod's author gets it.
            "annotation": decision.annotation if isinstance(decision, Deny) else "",
            "pod": mask_secrets(request.name),
            "namespace": request.namespace,
            "uid": request.uid[:64],
            "dry_run": request.dry_run,
            "milliseconds": round(seconds * 1000, 3),
            "event": "admission",
            "level": "info",
            "timestamp": datetime.now(UTC),
        }
        self._lines += (msgspec.json.encode(line), b"\n")

    def flush(self) -> None:
        """Write what has come together."""
        lines, self._lines = self._lines, []
        self._stream.write(b"".join(lines))
        self._stream.flush()
