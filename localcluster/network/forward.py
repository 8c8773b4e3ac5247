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
    """Accepts connections at one address and forwards each to where its route says at that moment."""

    def __init__(self, locate: Locate, route: Route) -> None:
        self._locate = locate
        self._route = route
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @classmethod
    async def open(cls, address: Address, locate: Locate, route: Route) -> Self:
        """Listen; raises OSError when the address cannot be had."""
        listener = cls(locate, route)
        loop = asyncio.get_running_loop()
        listener._server = await loop.create_server(listener._accepted, *address, backlog=512)
        return listener

    def reset(self, node: str) -> None:
        """Break the connections of clients on this node."""
        for connection in list(self._connections):
            if connection.node == node:
                connection.reset()

    def close(self) -> None:
        """Accept nothing more; connections that are open go on."""
        assert self._server is not None
        self._server.close()

    def abort(self) -> None:
        """Accept nothing more and break every connection."""
        self.close()
        for connection in list(self._connections):
            connection.reset()

    def _accepted(self) -> _Side:
        connection = _Connection(self._locate, self._route, self._connections.discard)
        self._connections.add(connection)
        return connection.client


class _Connection:
    """A client's socket, the one to its target, and what both sides do together."""

    def __init__(self, locate: Locate, route: Route, ended: Callable[[_Connection], None]) -> None:
        self.node: str | None = None
        self._locate = locate
        self._route = route
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self.client = _Side(self._begin, self._lost)
        self.target = _Side(lambda: None, self._lost)
        self.client.other, self.target.other = self.target, self.client

    def reset(self) -> None:
        """Break both sides at once."""
        if self._task is not None:
            self._task.cancel()
        for side in (self.client, self.target):
            side.reset()

    def _begin(self) -> None:
        transport = self.client.transport
        assert transport is not None
        transport.pause_reading()
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self.node = self._locate(peer, own)
        target = self._route(self.node)
        if target is None:
            self.reset()
        else:
            self._task = asyncio.create_task(self._connect(target), name=f"connect to {target[0]}:{target[1]}")

    async def _connect(self, target: Address) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: self.target, *target)
        except OSError as error:  # TimeoutError, too
            _log.info("connection not forwarded", target=f"{target[0]}:{target[1]}", error=str(error))
            self.reset()
            return
        assert self.client.transport is not None
        self.client.transport.resume_reading()

    def _lost(self, error: Exception | None) -> None:
        """One side is gone: by reset, or because both directions have ended and everything is written."""
        if error is not None or not (self.client.ended and self.target.ended):
            self.reset()
        if self.client.transport is None and self.target.transport is None:
            self._ended(self)


class _Side(asyncio.Protocol):
    """One socket of a connection; hands what it reads to the other."""

    other: _Side

    def __init__(self, made: Callable[[], None], lost: Callable[[Exception | None], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = False
        """Whether this side has sent its last byte."""
        self._made = made
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._made()

    def data_received(self, data: bytes) -> None:
        self._peer.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        self._peer.write_eof()
        if self.other.ended:
            for transport in (self._peer, self.transport):
                assert transport is not None
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
        if self.transport is None:
            return
        plain = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        self.transport.abort()

    @property
    def _peer(self) -> asyncio.Transport:
        assert self.other.transport is not None
        return self.other.transport
