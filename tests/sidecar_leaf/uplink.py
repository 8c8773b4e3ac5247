"""A TCP relay to one server that can be cut and mended, run by the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib


class Uplink:
    """Connections to `port` go to the target's port; while it is cut there are none."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._connected = True
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> Uplink:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def cut(self) -> None:
        """End all connections and refuse new ones."""
        self._connected = False
        self._server.close()
        for task in self._tasks:
            task.cancel()

    async def mend(self) -> None:
        """Listen again, on the same port."""
        self._connected = True
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                up, down = _copy(reader, far_writer), _copy(far_reader, writer)
                await asyncio.wait(
                    [asyncio.ensure_future(up), asyncio.ensure_future(down)], return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                far_writer.transport.abort()
                writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
