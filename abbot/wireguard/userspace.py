"""Runs one wireguard-go process for each device and configures it over its socket.

The processes are children of the daemon and the kernel ends them with it, however it ends; their interfaces go with
them. Secrets go over the socket, never into an environment or onto a command line.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from structlog.stdlib import BoundLogger

from abbot.wireguard.device import Device, DeviceChange
from abbot.wireguard.uapi import call, read_device, write_change
from edgefarm.errors import NetworkFailed

_SOCKET_FOLDERS: Final = (Path("/var/run/wireguard"), Path("/run/wireguard"))
_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1
_VERBOSE: Final = frozenset({"debug", "verbose"})
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class _Served:
    process: subprocess.Popen[str]
    reader: threading.Thread
    #: What it said last, for the error of a start that failed.
    said: collections.deque[str]


class Userspace:
    """The devices that are served by processes of ours."""

    def __init__(self, program: str, log: BoundLogger) -> None:
        self._program = program
        self._log = log
        self._served: dict[str, _Served] = {}
        # The kernel ends a child with the *thread* that started it: this one lives as long as we do.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="wireguard")

    def serves(self, name: str) -> bool:
        """Whether a process was started for this interface, dead or alive."""
        return name in self._served

    def alive(self, name: str) -> bool:
        """Whether the process of this interface runs."""
        served = self._served.get(name)
        return served is not None and served.process.poll() is None

    def pid(self, name: str) -> int | None:
        """Process id, while it runs."""
        return self._served[name].process.pid if self.alive(name) else None

    def create(self, name: str, log_level: str = "") -> None:
        """Start a process and wait until it can be spoken to."""
        self.delete(name)
        served = self._starter.submit(self._start, name, log_level).result()
        self._served[name] = served
        deadline = time.monotonic() + _START_SECONDS
        try:
            while not self._answers(name, served):
                if served.process.poll() is not None:
                    served.reader.join(_STOP_SECONDS)
                    words = served.said[-1] if served.said else "it said nothing"
                    raise NetworkFailed(f"interface {name}: {self._program} ended at once: {words}")
                if time.monotonic() > deadline:
                    raise NetworkFailed(f"interface {name}: {self._program} did not open its socket in time")
                time.sleep(_POLL_SECONDS)
        except NetworkFailed:
            self.delete(name)
            raise

    def delete(self, name: str) -> None:
        """Stop the process; its interface goes with it."""
        served = self._served.pop(name, None)
        if served is None:
            return
        served.process.terminate()
        try:
            served.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            served.process.kill()
            served.process.wait()
        served.reader.join(_STOP_SECONDS)

    def get(self, name: str) -> Device:
        """The device as it is now."""
        return read_device(self._call(name, "get=1\n\n"))

    def change(self, name: str, change: DeviceChange) -> None:
        """Change the device; wireguard-go takes it line by line."""
        self._call(name, write_change(change))

    def close(self) -> None:
        """Stop all processes."""
        for name in list(self._served):
            self.delete(name)
        self._starter.shutdown()

    def _call(self, name: str, operation: str) -> str:
        pid = self.pid(name)
        if pid is None:
            raise NetworkFailed(f"interface {name}: its WireGuard process has ended")
        return call(_socket(name), pid, operation, name)

    def _answers(self, name: str, served: _Served) -> bool:
        with contextlib.suppress(NetworkFailed):
            call(_socket(name), served.process.pid, "get=1\n\n", name)
            return True
        return False

    def _start(self, name: str, log_level: str) -> _Served:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LOG_LEVEL": "verbose" if log_level in _VERBOSE else "error",
        }
        try:
            process = subprocess.Popen(
                [self._program, "--foreground", name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=environment,
                # Its own session: what a terminal sends to the daemon's group is not meant for it.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        except OSError as error:
            raise NetworkFailed(
                f"interface {name}: cannot start {self._program}: {error.strerror}; install it (Debian: wireguard-go),"
                " or set wireguard.program"
            ) from error
        said: collections.deque[str] = collections.deque(maxlen=1)
        assert process.stdout is not None
        reader = threading.Thread(target=self._read, args=(name, process.stdout, said), daemon=True)
        reader.start()
        return _Served(process, reader, said)

    def _read(self, name: str, output: IO[str], said: collections.deque[str]) -> None:
        with output:
            for line in output:
                # Its log lines begin with their level; what else it prints is a banner.
                level, separator, _ = line.partition(": ")
                if separator and level in ("ERROR", "DEBUG"):
                    said.append(line.strip())
                    self._log.info("wireguard process", interface=name, said=line.strip())


def _socket(name: str) -> Path:
    paths = [folder / f"{name}.sock" for folder in _SOCKET_FOLDERS]
    return next((path for path in paths if path.exists()), paths[0])


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
