"""Serves requests in frames on `<socket>.raw`: what `abbot process` and `abbot-cni` speak (docs/mesh.md, "abbot")."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from abbot.client import MAX_FRAME
from edgefarm.errors import EdgefarmError

#: Seconds in which a client must send its request, and take its answer.
_CLIENT_TIMEOUT: Final = 10.0
_DONE: Final = 0
_FAILED: Final = 1
_HEADER_BYTES: Final = 4
_BUFFER: Final = 1 << 20

Answer = Callable[[bytes], Awaitable[bytes]]


class FrameServer:
    """One request a connection."""

    def __init__(self, answer: Answer, *, client_timeout: float = _CLIENT_TIMEOUT) -> None:
        """`answer` raises an EdgefarmError with a sentence for the client."""
        self._answer = answer
        self._client_timeout = client_timeout
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def start(self, path: Path) -> None:
        """Listen on a path where nothing is; OSError when that cannot be."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=_BUFFER)

    async def close(self, grace: float) -> None:
        """Stop listening; requests that have begun get `grace` seconds."""
        if self._server is not None:
            self._server.close()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in self._running:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        # Who goes away, or is too slow to send or take, has given up: there is nobody to tell.
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            try:
                await self._exchange(reader, writer)
            finally:
                self._running.discard(task)
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(self._client_timeout):
            length = int.from_bytes(await reader.readexactly(_HEADER_BYTES), "big")
            request = await reader.readexactly(length) if length <= MAX_FRAME else None
        if request is None:
            status, answer = _FAILED, f"the request has {length} bytes; {MAX_FRAME} is the most".encode()
        else:
            status, answer = await self._answered(request)
        async with asyncio.timeout(self._client_timeout):
            writer.write(bytes([status]) + len(answer).to_bytes(_HEADER_BYTES, "big") + answer)
            await writer.drain()

    async def _answered(self, request: bytes) -> tuple[int, bytes]:
        try:
            return _DONE, await self._answer(request)
        except EdgefarmError as error:
            return _FAILED, str(error).encode()
