"""`abbot process`: hands one request to the daemon, base64 on stdin and stdout, as node agents run it.

It starts once per request, so it imports neither protobuf nor YAML: the requests that environment variables can ask for
are encoded here, and of the configuration only the line `socket:` is read.
"""

from __future__ import annotations

import binascii
import os
import select
import sys
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from abbot.client import MAX_FRAME, DaemonUnreachable, RequestFailed, call
from abbot.socketline import configured_socket
from edgefarm.errors import SettingsError

#: Exit statuses; 0: the answer is on stdout.
REFUSED: Final = 1
MISUSED: Final = 2
UNREACHABLE: Final = 3

HELP: Final = """\
usage: abbot [-c FILE] process

Reads a base64 abbot-proto Request on stdin, hands it to the abbot daemon, and writes its base64 Response to stdout.

Instead of stdin, these variables can say what is asked for:
  ABBOT_REQ_ACTION          container:restore, container:query, container:delete or host:query
  ABBOT_REQ_CONTAINER_ID    the container (container:* only)
  ABBOT_REQ_CONTAINER_PID   a process in it, whose network namespace is the container's (container:* only)
  ABBOT_REQ_HOST_PROVIDER   providers separated by ';' (host:query only); none: all interfaces of the host

The daemon's socket is ABBOT_SOCKET, else `socket:` of FILE, else /run/abbot/abbot.sock.
Exit status 1: the daemon refused; 2: used or configured wrongly; 3: the daemon cannot be reached. stderr says why.
"""

#: Seconds for the daemon's answer: longer than any plugin or interface may take.
_ANSWER_TIMEOUT: Final = 120.0
#: Seconds in which all of stdin must have come.
_STDIN_TIMEOUT: Final = 30.0
#: base64 has 4 characters for 3 bytes; the rest is for line ends.
_MAX_INPUT: Final = MAX_FRAME // 3 * 4 + MAX_FRAME // 16
_CHUNK: Final = 1 << 16
#: Not sys.stdin: there is none where the caller has closed it.
_STDIN: Final = 0
_MAX_UINT32: Final = 2**32 - 1
_MAX_DIGITS: Final = len(str(_MAX_UINT32))


class _Action(NamedTuple):
    kind: int  # RequestType in abbot.proto
    of_container: bool


_ACTIONS: Final = {
    "container:restore": _Action(22, of_container=True),
    "container:query": _Action(24, of_container=True),
    "container:delete": _Action(23, of_container=True),
    "host:query": _Action(32, of_container=False),
}


def run(config: str | None, environ: Mapping[str, str]) -> int:
    """Run the command with the configuration file `config` (None: the default one); the exit status."""
    try:
        socket_path = configured_socket(config, environ)
        request = request_from(environ) or _decoded(_read_stdin())
        answer = call(socket_path, request, timeout=_ANSWER_TIMEOUT)
        # A program that reads our output only once gets all of it in one write.
        sys.stdout.write(binascii.b2a_base64(answer, newline=False).decode() + "\n")
        sys.stdout.flush()
    except SettingsError as error:
        return _failed(error, MISUSED)
    except RequestFailed as error:
        return _failed(error, REFUSED)
    except DaemonUnreachable as error:
        return _failed(error, UNREACHABLE)
    return 0


def request_from(environ: Mapping[str, str]) -> bytes | None:
    """The bytes of the Request that the variables ask for; None without ABBOT_REQ_ACTION."""
    name = environ.get("ABBOT_REQ_ACTION")
    if not name:
        return None
    action = _ACTIONS.get(name)
    if action is None:
        raise SettingsError([f"ABBOT_REQ_ACTION is {name!r}: write one of {', '.join(_ACTIONS)}"])
    body = _container_body(name, environ) if action.of_container else _providers_body(environ)
    return _varint_field(1, action.kind) + _bytes_field(2, body)


def _container_body(action: str, environ: Mapping[str, str]) -> bytes:
    container = environ.get("ABBOT_REQ_CONTAINER_ID", "")
    if not container:
        raise SettingsError([f"ABBOT_REQ_CONTAINER_ID is not set: {action} needs the container's id"])
    body = _text_field(1, container, "ABBOT_REQ_CONTAINER_ID")
    pid = environ.get("ABBOT_REQ_CONTAINER_PID", "")
    if not pid:
        return body
    number = int(pid) if pid.isascii() and pid.isdigit() and len(pid) <= _MAX_DIGITS else 0
    if not 0 < number <= _MAX_UINT32:
        raise SettingsError([f"ABBOT_REQ_CONTAINER_PID is {pid!r}: write the number of a process"])
    return body + _varint_field(2, number)


def _providers_body(environ: Mapping[str, str]) -> bytes:
    providers = (provider.strip() for provider in environ.get("ABBOT_REQ_HOST_PROVIDER", "").split(";"))
    return b"".join(_text_field(1, provider, "ABBOT_REQ_HOST_PROVIDER") for provider in providers if provider)


def _text_field(number: int, text: str, variable: str) -> bytes:
    try:
        return _bytes_field(number, text.encode())
    except UnicodeEncodeError:
        raise SettingsError([f"{variable} is not text in UTF-8"]) from None


def _varint_field(number: int, value: int) -> bytes:
    """A number as protobuf writes it: the tag's low bits 0 say that a varint follows."""
    return _varint(number << 3) + _varint(value)


def _bytes_field(number: int, value: bytes) -> bytes:
    """Bytes or a string as protobuf writes it, tag 2: length, then content. proto3 leaves out what is empty."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value if value else b""


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_stdin() -> bytes:
    """All of stdin, within time and size limits."""
    deadline = time.monotonic() + _STDIN_TIMEOUT
    data = bytearray()
    while True:
        try:
            ready, _, _ = select.select([_STDIN], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(_STDIN, _CHUNK) if ready else b""
        except OSError as error:
            raise SettingsError([f"stdin cannot be read: {error.strerror}"]) from None
        if not ready:
            raise SettingsError([f"stdin did not end within {_STDIN_TIMEOUT:g} s: write a base64 Request and close it"])
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > _MAX_INPUT:
            raise SettingsError([f"stdin is too long: a request has {MAX_FRAME} bytes at most"])


def _decoded(text: bytes) -> bytes:
    stripped = b"".join(text.split())
    if not stripped:
        raise SettingsError(["stdin is empty: write a base64 abbot-proto Request, or set ABBOT_REQ_ACTION"])
    try:
        return binascii.a2b_base64(stripped, strict_mode=True)
    except binascii.Error:
        # Not repeated: it may hold a private key.
        raise SettingsError(["stdin is not base64: write the bytes of an abbot-proto Request in base64"]) from None


def _failed(error: Exception, status: int) -> int:
    sys.stderr.write(f"{error}\n")
    return status
