"""Forwards TCP connections: a listener, and the two sockets of each connection joined byte by byte.

Nothing that was read is lost or reordered: each side is read only as fast as the other takes it. The end of one
direction (FIN) is handed on while the other direction goes on; a reset is handed on as a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final, Self, cast

import structlog

Address = tuple[str, int]
#: Given a client's and the listener's address: the node on which the client runs, None when it is no pod.
Locate = Callable[[Address, Address], str | None]
#: Given the client's node: where its connection goes, None to refuse it.
Route = Callable[[str | None], Address | None]

_CONNECT_SECONDS: Final = 5.0
#: `struct linger`: on, after 0 seconds; closing such a socket sends RST.
_LINGER: Final = struct.pack("ii", 1, 0)
_log = structlog.get_logger()


class Listener:
    """Accepts connections at one address and forwards each to where its route says at that moment.

    It accepts by itself: in asyncio's own server, what arrives while it is being closed may hang for good.
    """

    def __init__(self, plain: socket.socket, locate: Locate, route: Route) -> None:
        self._plain = plain
        self._locate = locate
        self._route = route
        self._connections: set[_Connection] = set()

    @classmethod
    def open(cls, address: Address, locate: Locate, route: Route) -> Self:
        """Listen; raises OSError when the address cannot be had."""
        plain = socket.create_server(address, backlog=512)
        plain.setblocking(False)
        listener = cls(plain, locate, route)
        asyncio.get_running_loop().add_reader(plain, listener._accept)
        return listener

    def reset(self, node: str) -> None:
        """Break the connections of clients on this node."""
        for connection in list(self._connections):
            if connection.node == node:
                connection.reset()

    def close(self) -> None:
        """Accept nothing more; connections that are open go on."""
        asyncio.get_running_loop().remove_reader(self._plain)
        self._plain.close()

    def abort(self) -> None:
        """Accept nothing more and break every connection."""
        self.close()
        for connection in list(self._connections):
            connection.reset()

    def _accept(self) -> None:
        try:
            plain, client = self._plain.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        plain.setblocking(False)
        node = self._locate(client, self._plain.getsockname())
        target = self._route(node)
        if target is None:
            _reset_when_closed(plain)
            plain.close()
            return
        connection = _Connection(plain, node, self._connections.discard)
        self._connections.add(connection)
        connection.start(target)


class _Connection:
    """A client's socket, the one to its target, and what both sides do together."""

    def __init__(self, plain: socket.socket, node: str | None, ended: Callable[[_Connection], None]) -> None:
        self.node = node
        self._plain = plain
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._client = _Side(self._lost)
        self._target = _Side(self._lost)
        self._client.other, self._target.other = self._target, self._client

    def start(self, target: Address) -> None:
        """Connect to the target, and forward from then on."""
        self._task = asyncio.create_task(self._connect(target), name=f"connect to {target[0]}:{target[1]}")

    def reset(self) -> None:
        """Break both sides at once."""
        if self._task is not None:
            self._task.cancel()
        if self._client.transport is None:  # not yet, or no longer
            _reset_when_closed(self._plain)
            self._plain.close()
        for side in (self._client, self._target):
            side.reset()
        self._settle()

    async def _connect(self, target: Address) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(lambda: self._target, *target)
            await loop.connect_accepted_socket(lambda: self._client, self._plain)
        except OSError as error:  # TimeoutError, too
            _log.info("connection not forwarded", target=f"{target[0]}:{target[1]}", error=str(error))
            self.reset()
            return
        for side in (self._client, self._target):
            if side.transport is not None:
                side.transport.resume_reading()

    def _lost(self, error: Exception | None) -> None:
        """One side is gone: by reset, or because both directions have ended and everything is written."""
        if error is not None or not (self._client.ended and self._target.ended):
            self.reset()
        self._settle()

    def _settle(self) -> None:
        if self._client.transport is None and self._target.transport is None:
            self._ended(self)


class _Side(asyncio.Protocol):
    """One socket of a connection; hands what it reads to the other, once both are there."""

    other: _Side

    def __init__(self, lost: Callable[[Exception | None], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = False
        """Whether this side has sent its last byte."""
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        if self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other.transport is not None:
            self.other.transport.write_eof()
        if self.other.ended:
            for transport in (self.other.transport, self.transport):
                if transport is not None:
                    transport.close()  # once everything is written
        return True

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._lost(error)

    def reset(self) -> None:
        """Close the socket so that its peer sees a reset."""
        if self.transport is not None:
            _reset_when_closed(self.transport.get_extra_info("socket"))
            self.transport.abort()


def _reset_when_closed(plain: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
