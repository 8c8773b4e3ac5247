"""Serves /healthz, /readyz and /metrics of the daemon in plain HTTP, one GET a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

_TIMEOUT: Final = 5.0
_MAX_REQUEST: Final = 16 * 1024


@dataclass(frozen=True)
class Page:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"


class HealthServer:
    """Answers with what `page(path)` gives; None is 404."""

    def __init__(self, page: Callable[[str], Page | None]) -> None:
        self._page = page
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen; OSError when the address cannot be used."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_REQUEST)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who is too slow, talks no HTTP or goes away is not worth a line in the log.
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                async with asyncio.timeout(_TIMEOUT):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(_encoded(self._answer(head)))
                    await writer.drain()
            finally:
                writer.close()

    def _answer(self, head: bytes) -> Page:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:
            return Page(b"bad request\n", HTTPStatus.BAD_REQUEST)
        if words[0] != "GET":
            return Page(b"only GET is allowed\n", HTTPStatus.METHOD_NOT_ALLOWED)
        return self._page(words[1].partition("?")[0]) or Page(b"not found\n", HTTPStatus.NOT_FOUND)


def _encoded(page: Page) -> bytes:
    head = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}\r\nContent-Type: {page.content_type}\r\n"
        f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + page.body
