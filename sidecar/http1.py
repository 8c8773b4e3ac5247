"""A small HTTP/1.1 client: one request at a time over a connection that is kept open.

The standard library's client reads headers with its e-mail package, which alone takes a quarter of the time in which
this process must have credentials. This one knows what Vault, daprd and our own health port send: a length, chunks, or
the end of the connection. See RFC 9112.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from typing import BinaryIO, Final

_MAX_LINE: Final = 8192
_MAX_HEADERS: Final = 100
_MAX_BODY: Final = 1 << 20


class ProtocolError(Exception):
    """The other side does not speak HTTP/1.1, or says more than fits into 1 MiB."""


class Connection:
    """A connection to one server, opened by the first request. `timeout` is for connecting and each wait, in seconds.

    Every request raises OSError or ProtocolError and closes the connection then.
    """

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._timeout = timeout
        self._tls = tls
        self._socket: socket.socket | None = None
        self._reader: BinaryIO | None = None

    @property
    def open(self) -> bool:
        """Whether an earlier request left it open; the other side may have closed it since."""
        return self._socket is not None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request and return status and body of the answer."""
        try:
            connection, reader = self._connected()
            connection.sendall(self._head(method, path, body, headers or {}) + (body or b""))
            status, answer, keep = _read_answer(reader)
        except (OSError, ProtocolError):
            self.close()
            raise
        if not keep:
            self.close()
        return status, answer

    def close(self) -> None:
        """Close it; the next request opens a new one."""
        if self._reader is not None:
            self._reader.close()
        if self._socket is not None:
            self._socket.close()
        self._socket = self._reader = None

    def _connected(self) -> tuple[socket.socket, BinaryIO]:
        if self._socket is None or self._reader is None:
            plain = socket.create_connection((self._host, self._port), self._timeout)
            try:
                self._socket = self._tls.wrap_socket(plain, server_hostname=self._host) if self._tls else plain
            except OSError:
                plain.close()
                raise
            self._reader = self._socket.makefile("rb")
        return self._socket, self._reader

    def _head(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> bytes:
        host = f"[{self._host}]" if ":" in self._host else self._host
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        if any("\r" in line or "\n" in line for line in lines):
            raise ProtocolError("a header must not contain a line break")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _read_answer(reader: BinaryIO) -> tuple[int, bytes, bool]:
    while True:
        words = _line(reader).split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
            raise ProtocolError("the answer is not HTTP/1.1")
        status, headers = int(words[1]), _headers(reader)
        if status >= 200:
            break
    keep = words[0] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    if status in (204, 304):
        return status, b"", keep
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return status, _chunks(reader), keep
    length = headers.get("content-length")
    if length is None:
        body = reader.read(_MAX_BODY + 1)
        if len(body) > _MAX_BODY:
            raise ProtocolError("the answer is longer than 1 MiB")
        return status, body, False
    return status, _exactly(reader, _number(length, 10)), keep


def _headers(reader: BinaryIO) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = _line(reader)
        if not line:
            return headers
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ProtocolError("the answer has too many headers")


def _chunks(reader: BinaryIO) -> bytes:
    body = b""
    while size := _number(_line(reader).partition(";")[0], 16):
        body += _exactly(reader, size)
        if len(body) > _MAX_BODY or _line(reader):
            raise ProtocolError("the answer's chunks are wrong or too long")
    _headers(reader)  # trailers
    return body


def _line(reader: BinaryIO) -> str:
    line = reader.readline(_MAX_LINE)
    if not line.endswith(b"\n"):
        raise ProtocolError("the connection ended within the answer" if len(line) < _MAX_LINE else "a line is too long")
    return line.rstrip(b"\r\n").decode("latin-1")


def _exactly(reader: BinaryIO, size: int) -> bytes:
    if size > _MAX_BODY:
        raise ProtocolError("the answer is longer than 1 MiB")
    body = reader.read(size)
    if len(body) < size:
        raise ProtocolError("the connection ended within the answer")
    return body


def _number(text: str, base: int) -> int:
    try:
        number = int(text.strip(), base)
    except ValueError:
        number = -1
    if number < 0:
        raise ProtocolError("a length in the answer is not a number")
    return number
