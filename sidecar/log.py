"""Log lines of the sidecar: JSON on stderr like that of the other programs, without the libraries they use."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO

from edgefarm.secrets import mask_secrets

_LEVELS: Final = ("debug", "info", "warning", "error")
#: A failure that goes on unchanged is said again after this many seconds.
REMIND_AFTER: Final = 600.0


class Log:
    """Writes events with named values; values never are secrets, and what looks like one is masked."""

    def __init__(self, level: str, clock: Callable[[], float], stream: TextIO | None = None) -> None:
        self._lowest = _LEVELS.index(level)
        self._clock = clock
        self._stream = stream or sys.stderr
        self._last_problems: dict[str, tuple[str, float]] = {}

    def info(self, event: str, **values: object) -> None:
        """Something that happened as it should."""
        self._write("info", event, values)

    def warning(self, event: str, **values: object) -> None:
        """Something that needs attention when it stays."""
        self._write("warning", event, values)

    def failure(self, event: str, **values: object) -> None:
        """Something that ends the process or is our own mistake."""
        self._write("error", event, values)

    def problem(self, message: str, topic: str = "", **values: object) -> None:
        """A failure that is tried again: said when it is new or different for its topic, and then rarely."""
        now = self._clock()
        last, said_at = self._last_problems.get(topic, ("", 0.0))
        if last == message and 0 <= now - said_at < REMIND_AFTER:
            return
        self._last_problems[topic] = (message, now)
        self.warning(message, **values)

    def recovered(self, event: str, topic: str = "") -> None:
        """The end of a topic's problem, if there was one."""
        if self._last_problems.pop(topic, None) is not None:
            self.info(event)

    def _write(self, level: str, event: str, values: dict[str, object]) -> None:
        if _LEVELS.index(level) < self._lowest:
            return
        line = {**values, "event": event, "program": "sidecar", "level": level, "timestamp": utc(self._clock())}
        masked = {name: mask_secrets(value) if isinstance(value, str) else value for name, value in line.items()}
        print(json.dumps(masked, default=str), file=self._stream, flush=True)


def utc(moment: float) -> str:
    """A time in Unix seconds as people read it."""
    return datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
