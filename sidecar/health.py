"""The health port: `/healthz`, `/readyz` and `/metrics` in plain HTTP, small enough for one per pod."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.http1 import Connection, ProtocolError

#: Seconds in which a client must send its request and take the answer.
_TIMEOUT: Final = 2.0
_MAX_REQUEST: Final = 8192
#: Requests answered at the same time; more wait in the listen queue.
_PARALLEL: Final = 4
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Page:
    """One answer."""

    status: int
    body: str
    content_type: str = "text/plain; charset=utf-8"


class HealthServer:
    """Answers GET requests with the page that `page(path)` gives; None is 404."""

    def __init__(self, host: str, port: int, page: Callable[[str], Page | None]) -> None:
        self._page = page
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=16)
        self._slots = threading.Semaphore(_PARALLEL)

    def start(self) -> None:
        """Serve in the background until the process ends."""
        threading.Thread(target=self._serve, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue
            self._slots.acquire()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(_TIMEOUT)
            with connection, contextlib.suppress(OSError):
                connection.sendall(_response(self._respond(_request_line(connection))))
        finally:
            self._slots.release()

    def _respond(self, line: str) -> Page:
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Page(400, "not an HTTP request\n")
        if words[0] != "GET":
            return Page(405, "only GET is served here\n")
        return self._page(words[1].partition("?")[0]) or Page(404, "there are /healthz, /readyz and /metrics\n")


def fetch(host: str, port: int, path: str, timeout: float) -> Page:
    """GET a page of a health server; OSError when it does not answer."""
    connection = Connection(host, port, timeout)
    try:
        status, body = connection.request("GET", path)
    except ProtocolError as error:
        raise OSError(f"no HTTP answer from {host}:{port}: {error}") from error
    connection.close()
    return Page(status, body.decode(errors="replace"))


def _request_line(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < _MAX_REQUEST:
        chunk = connection.recv(_MAX_REQUEST - len(data))
        if not chunk:
            break
        data += chunk
    return data.partition(b"\r\n")[0].decode("latin-1")


def _response(page: Page) -> bytes:
    body = page.body.encode()
    head = (
        f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
