"""Hands one request to the abbot daemon over its raw socket; for short-lived commands, so it imports next to nothing.

The frames are described in docs/mesh.md, "abbot". What the bytes mean is the callers' business.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Final

from edgefarm.errors import Refused, Unavailable

#: The daemon's socket where no setting names another.
DEFAULT_SOCKET: Final = "/run/abbot/abbot.sock"
RAW_SUFFIX: Final = ".raw"
#: Bytes of a request or an answer; more is an error on either side.
MAX_FRAME: Final = 16 * 1024 * 1024

_DONE: Final = 0
_FAILED: Final = 1
_HEADER_BYTES: Final = 4


class DaemonUnreachable(Unavailable):
    """The daemon does not run, may not be spoken to, or did not answer in time."""


class RequestFailed(Refused):
    """The daemon answered that it cannot do what was asked; its own words."""


def raw_socket(socket_path: str) -> str:
    """Where the frames are spoken, beside the gRPC socket `socket_path`."""
    return socket_path + RAW_SUFFIX


def call(socket_path: str, request: bytes, *, timeout: float) -> bytes:
    """The bytes of the Response to the bytes of a Request.

    `socket_path` is the setting `socket` (the gRPC socket; the frames are spoken beside it). `timeout` are seconds for
    all of it. DaemonUnreachable when nobody answers, RequestFailed with the daemon's sentence when it refuses.
    """
    if len(request) > MAX_FRAME:
        raise RequestFailed(f"the request has {len(request)} bytes; the abbot daemon takes {MAX_FRAME} at most")
    path = raw_socket(socket_path)
    deadline = time.monotonic() + timeout
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            # A daemon that refuses a frame may close before it has read all of it: its answer says why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(len(request).to_bytes(_HEADER_BYTES, "big") + request)
            status = _receive(connection, 1, deadline)[0]
            length = int.from_bytes(_receive(connection, _HEADER_BYTES, deadline), "big")
            if status not in (_DONE, _FAILED) or length > MAX_FRAME:
                raise DaemonUnreachable(f"who listens on {path} does not speak like an abbot daemon")
            answer = _receive(connection, length, deadline)
    except TimeoutError:
        raise DaemonUnreachable(f"the abbot daemon did not answer on {path} within {timeout:g} s") from None
    except OSError as error:
        raise DaemonUnreachable(
            f"the abbot daemon cannot be reached on {path}: {error.strerror or error}; start `abbot daemon`, or set"
            " `socket` as it is set there"
        ) from error
    if status == _FAILED:
        raise RequestFailed(answer.decode("utf-8", "replace"))
    return answer


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, or DaemonUnreachable."""
    parts = bytearray()
    while len(parts) < size:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        part = connection.recv(min(size - len(parts), 1 << 16))
        if not part:
            raise DaemonUnreachable("the abbot daemon closed the connection before it had answered; see its log")
        parts += part
    return bytes(parts)
