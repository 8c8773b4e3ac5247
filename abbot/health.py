"""Serves /healthz, /readyz and /metrics of the daemon in plain HTTP, one GET a connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from edgefarm.pages import BAD_REQUEST, NOT_ALLOWED, Page, request_line

_TIMEOUT: Final = 5.0
_MAX_REQUEST: Final = 16 * 1024


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
                    writer.write(self._answer(head).encode())
                    await writer.drain()
            finally:
                writer.close()

    def _answer(self, head: bytes) -> Page:
        line = request_line(head)
        if line is None:
            return BAD_REQUEST
        method, path = line
        if method != "GET":
            return NOT_ALLOWED
        return self._page(path) or Page(b"not found\n", HTTPStatus.NOT_FOUND)
