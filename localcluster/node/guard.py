"""Guard: a process that outlives a killed node runner for a moment and kills the containers' process groups.

PR_SET_PDEATHSIG reaches the containers' first processes only, not what they started. The guard reads `+<pid>` and
`-<pid>` lines from its standard input; when that ends, because the runner is gone, it kills the groups still listed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import Self


class Guard:
    """The runner's end of the guard process."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen

    @classmethod
    def start(cls) -> Self:
        # Isolated and without site: the guard needs the standard library only, and starts in a few milliseconds.
        command = [sys.executable, "-I", "-S", __file__]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))

    @property
    def pid(self) -> int:
        return self._popen.pid

    def add(self, group: int) -> None:
        self._write(f"+{group}\n")

    def remove(self, group: int) -> None:
        self._write(f"-{group}\n")

    def close(self) -> None:
        """End the guard; it kills what was not removed."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(5)

    def _write(self, line: str) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # killed by hand: PDEATHSIG still holds
            self._popen.stdin.write(line.encode())
            self._popen.stdin.flush()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
