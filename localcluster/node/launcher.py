"""Starts containers' processes from the event loop's thread and tells when they end, without threads or polling."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from localcluster.node.guard import Guard
from localcluster.process import LocalProcess


@dataclass(frozen=True)
class Command:
    """What to run, completely."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    node: str
    """The node on which it runs."""


class RunningProcess:
    """A started process; `exited` resolves to its exit status, 128 + n after signal n."""

    def __init__(self, process: LocalProcess, reaped: Callable[[int], None]) -> None:
        self.pid = process.pid
        self._process = process
        self._reaped = reaped
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._descriptor = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._reap)

    async def stop(self, grace: float) -> int:
        """SIGTERM, after `grace` seconds SIGKILL; the exit status."""
        self._process.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.shield(self.exited)
        self.kill()
        return await asyncio.shield(self.exited)

    def kill(self) -> None:
        """SIGKILL to the process and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        code = self._process.returncode
        if code is None:
            return
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.kill()  # as with a container: when its first process ends, the others end, too
        self._reaped(self.pid)
        if not self.exited.done():
            self.exited.set_result(code if code >= 0 else 128 - code)


class Launcher:
    """Starts processes under a guard, so that nothing of them outlives the runner."""

    def __init__(self) -> None:
        self._guard = Guard.start()
        self._nodes: dict[int, str] = {}

    def start(self, command: Command) -> RunningProcess:
        """Raise OSError when the program cannot be executed."""
        process = LocalProcess.start(command.name, command.argv, log=command.log, env=command.env, cwd=command.cwd)
        self._guard.add(process.pid)
        self._nodes[process.pid] = command.node
        return RunningProcess(process, self._forget)

    def node_of_session(self, session: int) -> str | None:
        """The node of the process that leads this session; None when it is none of ours."""
        return self._nodes.get(session)

    async def run(self, command: Command, seconds: float) -> str | None:
        """Run to the end, at most that many seconds: None, or one sentence on what went wrong."""
        try:
            running = self.start(command)
        except OSError as error:
            return f"cannot execute {command.argv[0]}: {error.strerror}"
        try:
            async with asyncio.timeout(seconds):
                code = await asyncio.shield(running.exited)
        except TimeoutError:
            return f"{command.argv[0]} did not end within {seconds:g} s"
        finally:
            running.kill()
        return None if code == 0 else f"{command.argv[0]} ended with {code}: {_tail(command.log)}"

    def close(self) -> None:
        self._guard.close()

    def _forget(self, pid: int) -> None:
        self._guard.remove(pid)
        del self._nodes[pid]


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return lines[-1][:200] if lines else "no output"
