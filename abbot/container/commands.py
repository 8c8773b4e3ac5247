"""Runs a program to its end with a limit for its time and its output; the only place of this package that does."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm.errors import NetworkFailed

#: Plugins look for iptables and others here: a daemon's own PATH may lack the sbin folders.
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds.
TIMEOUT: Final = 20.0
#: Bytes of stdout and stderr together.
MAX_OUTPUT: Final = 1024 * 1024


@dataclass(frozen=True)
class Finished:
    """What a program left: its exit status (negative: the signal that ended it) and its output."""

    status: int
    stdout: bytes
    stderr: bytes


def installed(program: str) -> bool:
    """Whether a program of this name can be run."""
    return shutil.which(program, path=PATH) is not None


def run(
    argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout: float = TIMEOUT
) -> Finished:
    """Run a program with `env` and PATH as its whole environment.

    NetworkFailed when it cannot be started, takes longer than `timeout` seconds or writes too much; it and its
    children are killed then.
    """
    name = os.path.basename(argv[0])
    # In memory, so that a full disk stops no container; a file, so that a program that does not read blocks nobody.
    with open(os.memfd_create("stdin"), "w+b") as source:
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": PATH, **(env or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise NetworkFailed(f"{argv[0]} cannot be run: {error.strerror or error}") from error
    with process:
        try:
            return _finish(process, name, timeout)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _finish(process: subprocess.Popen[bytes], name: str, timeout: float) -> Finished:
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout
    output = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in output:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            remaining = deadline - time.monotonic()
            ready = selector.select(remaining) if remaining > 0 else []
            if not ready:
                raise NetworkFailed(f"{name} did not end within {timeout:g} s and was killed")
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                if not part:
                    selector.unregister(key.fd)
                output[key.fd] += part
            if sum(map(len, output.values())) > MAX_OUTPUT:
                raise NetworkFailed(f"{name} wrote more than {MAX_OUTPUT} bytes and was killed")
    try:
        status = process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise NetworkFailed(f"{name} did not end within {timeout:g} s and was killed") from None
    stdout, stderr = (bytes(part) for part in output.values())
    return Finished(status, stdout, stderr)
