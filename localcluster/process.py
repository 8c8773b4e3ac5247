"""Start a local process so that it never outlives us, and stop it: used by the stack, the node runner and tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_SERVER_PORTS: Final = range(16_384, 32_768)
_ATTEMPTS: Final = 100
_libc = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """A process ended or did not become ready; the message carries the tail of its log."""


class LocalProcess:
    """A child in its own process group, its output in a file.

    The kernel kills it when the thread that started it dies (prctl PR_SET_PDEATHSIG), so nothing is left behind even
    after kill -9 of the parent; start long-lived children from a long-lived thread.
    """

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> LocalProcess:
        """Start `command`; its output is appended to `log`. `env` replaces the whole environment."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(name, popen, log)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the process itself (not its children); no error when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(number)

    def suspend(self, timeout: float = 10.0) -> None:
        """SIGSTOP, and return when it has taken effect: a busy machine lets a process run on for a while."""
        self.signal(signal.SIGSTOP)
        deadline = time.monotonic() + timeout
        while not all(state == "T" for state in self._states()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} (pid {self.pid}) did not stop within {timeout:g} s")
            time.sleep(0.005)

    def resume(self) -> None:
        """SIGCONT after `suspend`."""
        self.signal(signal.SIGCONT)

    def _states(self) -> list[str]:
        """The kernel's letters for the states of its threads; see proc_pid_stat(5)."""
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{self.pid}/task").iterdir()]
        return [stat.rpartition(")")[2].split()[0] for stat in stats]

    def wait(self, timeout: float) -> int:
        """Wait for the end; raise TimeoutError after `timeout` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (pid {self.pid}) did not end within {timeout:g} s") from None

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM, and SIGKILL to the whole process group after `grace` seconds."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            self.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self.wait(5)

    def tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def wait_until(self, condition: Callable[[], bool], what: str, timeout: float = 20.0) -> LocalProcess:
        """Return when `condition()` holds; raise StartError when the process ends before or time runs out."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.returncode is not None:
                raise StartError(f"{self.name} ended with {self.returncode} before {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name}: not {what} after {timeout:g} s:\n{self.tail()}")
            time.sleep(0.02)
        return self


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago, below those that Linux gives to outgoing connections: one of these could
    take it before the server that is told to listen there."""
    for _ in range(_ATTEMPTS):
        port = _SERVER_PORTS.start + secrets.randbelow(len(_SERVER_PORTS))
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((host, port))
            return port
    raise StartError(f"none of {_ATTEMPTS} ports of {host} was free")


def accepts(host: str, port: int) -> bool:
    """Whether something listens on this TCP address now."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=0.5):
        return True
    return False


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
