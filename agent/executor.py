"""Owns what becomes of a request: whether the host offers it, how many run at once, and the command's answer or words.

The seed's rule: the request goes to the command's stdin, its answer comes from stdout, its errors from stderr. What
the bytes mean is between the reconciler and the command.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent import command
from agent.command import Command, End, Result
from edgefarm.agentbus import Status
from edgefarm.agentparts import Answer
from edgefarm.secrets import mask_secrets

#: Requests that may wait for each one that may run.
_WAITING_PER_SLOT: Final = 16
#: Characters of a command's words that are handed on.
_MAX_WORDS: Final = 2000
#: Inputs shorter than this may well be found in any text.
_MIN_RECOGNISABLE: Final = 8
_DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_SPACE = re.compile(rb"\s+")


class Encoding(StrEnum):
    """How bytes stand on a command's stdin or stdout."""

    BASE64 = "base64"
    RAW = "raw"


@dataclass(frozen=True)
class NetworkSettings:
    """The section `network` of the configuration, and whether the host runs containers. `timeout` in seconds,
    `max_output` in bytes."""

    enabled: bool = False
    arguments: tuple[str, ...] = ()
    stdin: Encoding = Encoding.BASE64
    stdout: Encoding = Encoding.BASE64
    timeout: float = 30.0
    max_output: int = 16 * 1024 * 1024
    concurrency: int = 4
    containers: bool = False


class Executor:
    """Runs the network command of this host."""

    def __init__(self, settings: NetworkSettings, environment: Mapping[str, str]) -> None:
        """Of `environment` the command gets PATH and HOME only: the agent's own is full of addresses and files that
        are none of its business."""
        self.settings = settings
        self._command = Command(
            settings.arguments,
            {"PATH": environment.get("PATH") or _DEFAULT_PATH, "HOME": environment.get("HOME") or "/"},
            settings.max_output,
        )
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="command")
        self._stop = threading.Event()
        self._waiting = 0

    async def run(self, data: bytes, *, seconds: float, container: bool = False) -> Answer:
        """Run the command with `data`, and say what became of it.

        `seconds` include the time that the request waits for others; the configured timeout is the command's
        alone. Nothing is raised: whatever goes wrong is an answer.
        """
        refusal = self._refusal(container)
        if refusal is not None:
            return refusal
        deadline = asyncio.get_running_loop().time() + seconds
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        except TimeoutError:
            return _answer(Status.TIMEOUT, f"not begun within {seconds:g} s, because others were running")
        finally:
            self._waiting -= 1
        try:
            if self._stop.is_set():
                return _stopping()
            loop = asyncio.get_running_loop()
            left = min(self.settings.timeout, deadline - loop.time())
            return await loop.run_in_executor(self._threads, self._execute, data, left)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """End all that is running, refuse what comes, and return when everything has ended."""
        self._stop.set()
        await asyncio.to_thread(self._threads.shutdown)

    def _refusal(self, container: bool) -> Answer | None:
        if not self.settings.enabled:
            return _answer(Status.UNSUPPORTED, "the network is not enabled on this host (network.enabled)")
        if container and not self.settings.containers:
            return _answer(Status.UNSUPPORTED, "this host runs no containers (containers)")
        if self._stop.is_set():
            return _stopping()
        if self._waiting >= self.settings.concurrency * _WAITING_PER_SLOT:
            return _answer(Status.BUSY, f"{self._waiting} requests are waiting already")
        return None

    def _execute(self, data: bytes, seconds: float) -> Answer:
        if self._stop.is_set():
            return _stopping()
        sent = base64.b64encode(data) if self.settings.stdin is Encoding.BASE64 else data
        program = self._command.arguments[0]
        try:
            result = command.run(self._command, sent, seconds=seconds, stop=self._stop)
        except OSError as error:
            return _answer(Status.FAILED, f"cannot run {program}: {error.strerror}")
        # A command that repeats its input in an error would spread what may be a key.
        stderr = result.stderr.replace(sent, b"[request]") if len(sent) >= _MIN_RECOGNISABLE else result.stderr
        words = readable(stderr)
        match result.end:
            case End.EXITED:
                return self._exited(result, words)
            case End.TIMEOUT:
                return _answer(Status.TIMEOUT, _with_words(f"{program} was ended after {seconds:.3g} s", words))
            case End.TOO_LARGE:
                limit = self.settings.max_output
                return _answer(Status.TOO_LARGE, f"{program} was ended, because it wrote more than {limit} bytes")
            case End.STOPPED:
                return _stopping()

    def _exited(self, result: Result, words: str) -> Answer:
        program, status = self._command.arguments[0], result.status
        assert status is not None
        if status < 0:
            what = f"{program} was killed by {_signal_name(-status)}"
            return _answer(Status.FAILED, _with_words(what, words), status)
        if status:
            return _answer(Status.FAILED, words or f"{program} ended with status {status} and said nothing", status)
        try:
            return Answer(Status.DONE, _decode(result.stdout, self.settings.stdout), status)
        except binascii.Error:
            what = f"the answer of {program} is not base64, as network.stdoutEncoding says"
            return _answer(Status.FAILED, _with_words(what, words), status)


def readable(text: bytes) -> str:
    """A command's words as one line for a human: no control characters, nothing that looks like a credential, and
    only the end of what is too long."""
    decoded = _ANSI.sub("", text.decode(errors="replace"))
    printable = "".join(character if character.isprintable() else " " for character in decoded)
    line = mask_secrets(" ".join(printable.split()))
    return line if len(line) <= _MAX_WORDS else f"… {line[-_MAX_WORDS:]}"


def _decode(stdout: bytes, encoding: Encoding) -> bytes:
    if encoding is Encoding.RAW:
        return stdout
    # Programs end it with a new line, and some break it into lines.
    return base64.b64decode(_SPACE.sub(b"", stdout), validate=True)


def _with_words(what: str, words: str) -> str:
    return f"{what}; it said: {words}" if words else what


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _stopping() -> Answer:
    return _answer(Status.BUSY, "the agent is ending")


def _answer(status: Status, text: str, exit_status: int | None = None) -> Answer:
    return Answer(status, text.encode(), exit_status)
