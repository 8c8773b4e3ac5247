"""Owns one run of a command, in the calling thread: its input and output, its limits, and its end with all it started.

Knows nothing of what the bytes mean, and never puts them anywhere but on the command's stdin.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import IO, Final

#: Seconds between looks at whether the command must be ended.
_TICK: Final = 0.05
#: Seconds that a command's processes get between SIGTERM and SIGKILL.
_GRACE: Final = 1.0
#: Seconds after SIGKILL; who is still there then waits for the kernel, and nobody can wait for that.
_KILLED: Final = 2.0
#: Seconds that output is waited for after the command itself has ended: what it left running may hold its pipes open.
_LINGER: Final = 1.0
#: Bytes of stderr that are kept: the last ones, because they say why it ended.
_MAX_STDERR: Final = 16 * 1024
_CHUNK: Final = 64 * 1024


class End(Enum):
    """How a run came to its end."""

    EXITED = auto()
    TIMEOUT = auto()
    TOO_LARGE = auto()
    STOPPED = auto()


@dataclass(frozen=True)
class Command:
    """What to run. `environment` is all that it gets; `max_output` bounds stdout in bytes."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    max_output: int


@dataclass(frozen=True)
class Result:
    """How it ended, and what it said. `status` is None where it was ended by us, negative for another's signal."""

    end: End
    status: int | None
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


def run(command: Command, data: bytes, *, seconds: float, stop: threading.Event) -> Result:
    """Run it with `data` on stdin, for at most `seconds`, or until `stop` is set. OSError when it cannot be started.

    It gets a session of its own. When it must be ended, its whole process group is: SIGTERM, then SIGKILL. What a
    command that ended by itself leaves running is its own affair.
    """
    deadline = time.monotonic() + seconds
    process = subprocess.Popen(
        command.arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(command.environment),
        cwd="/",
        bufsize=0,
        start_new_session=True,
    )
    with contextlib.ExitStack() as pipes:
        exchange = pipes.enter_context(contextlib.closing(_Exchange(process, data, command.max_output)))
        end = _until_end(process, exchange, deadline, stop)
        if end is not End.EXITED:
            _end_group(process)
        status = process.returncode if end is End.EXITED else None
        return Result(end, status, bytes(exchange.stdout), bytes(exchange.stderr))


def _until_end(process: subprocess.Popen[bytes], exchange: _Exchange, deadline: float, stop: threading.Event) -> End:
    """Serve the pipes until there is a reason to end."""
    lingering: float | None = None
    while True:
        now = time.monotonic()
        if exchange.overflown:
            return End.TOO_LARGE
        if process.poll() is not None:
            lingering = lingering or now + _LINGER
            if exchange.drained or now >= lingering:
                return End.EXITED
        if stop.is_set():
            return End.STOPPED
        if now >= deadline:
            return End.TIMEOUT
        patience = min(_TICK, deadline - now)
        if exchange.drained:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        else:
            exchange.step(patience)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End all processes of the group, also those that the command left when it ended on SIGTERM."""
    _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline:
        gone = process.poll() is not None
        if gone and not _signal_group(process.pid, 0):
            return
        time.sleep(_TICK / 5)
    _signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was somebody to signal."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # only processes of another user are left, e.g. of a command behind sudo
        return True
    return True


class _Exchange:
    """Writes a command's stdin and reads its stdout and stderr, each as far as it goes at the moment."""

    def __init__(self, process: subprocess.Popen[bytes], data: bytes, max_output: int) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout = bytearray()
        self.stderr = bytearray()
        self._rest = memoryview(data)
        self._max_output = max_output
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self._selector = selectors.DefaultSelector()
        for pipe in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(pipe.fileno(), False)
        self._selector.register(self._stdin, selectors.EVENT_WRITE, self._write)
        self._selector.register(self._stdout, selectors.EVENT_READ, self._read_stdout)
        self._selector.register(self._stderr, selectors.EVENT_READ, self._read_stderr)

    @property
    def overflown(self) -> bool:
        """Whether stdout is more than it may be."""
        return len(self.stdout) > self._max_output

    @property
    def drained(self) -> bool:
        """Whether nothing more will come: both outputs were closed."""
        return self._stdout.closed and self._stderr.closed

    def step(self, seconds: float) -> None:
        """Move what can be moved; wait at most so long for something to move."""
        for key, _ in self._selector.select(seconds):
            key.data()

    def close(self) -> None:
        """Close what is still open."""
        for pipe in (self._stdin, self._stdout, self._stderr):
            if not pipe.closed:
                self._end(pipe)
        self._selector.close()

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._stdin.fileno(), self._rest[:_CHUNK]) :] if self._rest else self._rest
        except BrokenPipeError:  # it does not want to read all of it
            self._rest = self._rest[:0]
        except BlockingIOError:
            return
        if not self._rest:
            self._end(self._stdin)

    def _read_stdout(self) -> None:
        self.stdout += self._read(self._stdout)

    def _read_stderr(self) -> None:
        self.stderr += self._read(self._stderr)
        del self.stderr[:-_MAX_STDERR]

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        if not data:
            self._end(pipe)
        return data

    def _end(self, pipe: IO[bytes]) -> None:
        self._selector.unregister(pipe)
        pipe.close()
