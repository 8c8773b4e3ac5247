"""Serves pages over plain HTTP: small on purpose, for the kubelet, Prometheus and `edgefarm doctor` only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

from edgefarm.pages import BAD_REQUEST, NOT_ALLOWED, Page, query, request_line

#: Answers a question that takes time, from the request's query; never raises.
Answerer = Callable[[Mapping[str, str]], Awaitable[Page]]

_TIMEOUT: Final = 5.0
#: Seconds that an answerer may take; it sets itself a shorter limit and says so.
_ANSWER_TIMEOUT: Final = 10.0
_MAX_REQUEST: Final = 16 * 1024


class HealthServer:
    """Answers GET requests from functions, one request per connection."""

    def __init__(self, pages: Mapping[str, Callable[[], Page]]) -> None:
        """`pages`: path to the function that makes the answer."""
        self._pages = pages
        self._answerers: dict[str, Answerer] = {}
        self._server: asyncio.Server | None = None

    def add_answerer(self, path: str, answerer: Answerer) -> None:
        """Answer questions under one more path; before `start`."""
        self._answerers[path] = answerer

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
                async with asyncio.timeout(_ANSWER_TIMEOUT):
                    page = await self._answer(head)
                async with asyncio.timeout(_TIMEOUT):
                    writer.write(page.encode())
                    await writer.drain()
            finally:
                writer.close()

    async def _answer(self, head: bytes) -> Page:
        line = request_line(head)
        if line is None:
            return BAD_REQUEST
        method, path = line
        known = sorted({*self._pages, *self._answerers})
        if path not in known:
            return Page(f"known here: {', '.join(known)}\n".encode(), HTTPStatus.NOT_FOUND)
        if method != "GET":
            return NOT_ALLOWED
        if path in self._answerers:
            return await self._answerers[path](query(head))
        return self._pages[path]()
