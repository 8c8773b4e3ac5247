"""Serves /healthz, /readyz and /metrics over plain HTTP: small on purpose, for the kubelet and Prometheus only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

_TIMEOUT: Final = 5.0
_MAX_REQUEST: Final = 16 * 1024


@dataclass(frozen=True)
class Page:
    """An answer to a GET."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def text(cls, line: str, *, ok: bool = True) -> Page:
        """One line; 503 when it is not ok."""
        return cls(f"{line}\n".encode(), HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)


class HealthServer:
    """Answers GET requests from functions, one request per connection."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        """`pages`: path to the function that makes the answer."""
        self._pages = pages
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError when the address cannot be used."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_REQUEST)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever is too slow, talks no HTTP or goes away is not worth a line in the log.
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                async with asyncio.timeout(_TIMEOUT):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_encode(self._answer(head)))
                    await writer.drain()
            finally:
                writer.close()

    def _answer(self, head: bytes) -> Page:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return Page(b"bad request\n", HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        page = self._pages.get(target.partition("?")[0])
        if page is None:
            return Page(f"known here: {', '.join(sorted(self._pages))}\n".encode(), HTTPStatus.NOT_FOUND)
        if method != "GET":
            return Page(b"only GET is allowed\n", HTTPStatus.METHOD_NOT_ALLOWED)
        return page()


def _encode(page: Page) -> bytes:
    return (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\n"
        f"Content-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + page.body
