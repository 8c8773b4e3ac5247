"""A listener with its connections: opened, kept within time and number, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Final

from webhook.http1 import Application, Connection, Limits

_BACKLOG: Final = 1024
#: A TLS handshake that takes longer is given up.
_HANDSHAKE_SECONDS: Final = 5.0
#: How long requests that have begun may take after the listener closed; the API server waits 5 s for us.
_GRACE_SECONDS: Final = 5.0
#: How long clients may take to agree to the end of their connections (TLS close_notify).
_GOODBYE_SECONDS: Final = 1.0
#: How often deadlines are looked at.
_SWEEP_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02


class Server:
    """Serves one application on one port, over TLS when there is a context."""

    def __init__(self, application: Application, limits: Limits, context: ssl.SSLContext | None = None) -> None:
        self._application, self._limits, self._context = application, limits, context
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._draining = False

    @property
    def started(self) -> bool:
        """Whether it listens."""
        return self._listener is not None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def start(self, host: str, port: int, *, shared: bool = False) -> None:
        """Begin to listen; raises OSError when the address cannot be had.

        A shared port may be had by several processes of one user: the kernel spreads new connections over them.
        """
        loop = asyncio.get_running_loop()
        tls = self._context is not None
        self._listener = await loop.create_server(
            self._connection,
            host,
            port,
            backlog=_BACKLOG,
            reuse_port=shared,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls else None,
            ssl_shutdown_timeout=_GOODBYE_SECONDS if tls else None,
        )
        self._sweep(loop)

    def drain(self) -> None:
        """From now on every connection ends with its next answer, so that its client opens one to another replica."""
        self._draining = True
        for connection in self._connections:
            connection.last_request = True

    async def stop(self) -> None:
        """Close the listener, let requests that have begun finish, and end every connection, all in bounded time."""
        if self._listener is None or self._sweeper is None:
            return
        self._listener.close()
        self.drain()
        await self._wait_until(lambda: not any(connection.in_request for connection in self._connections))
        self._sweeper.cancel()
        for connection in list(self._connections):
            connection.close()
        await self._wait_until(lambda: not self._connections, _GOODBYE_SECONDS)
        self._listener = None

    def _connection(self) -> Connection:
        return Connection(self._application, self._limits, self._opened, self._connections.discard)

    def _opened(self, connection: Connection) -> None:
        connection.last_request = self._draining
        if len(self._connections) >= self._limits.connections:
            # Whoever has not asked anything yet goes first, then whoever has been silent for longest.
            min(self._connections, key=lambda other: (other.answered > 0, other.deadline)).abort()
        self._connections.add(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [connection for connection in self._connections if connection.deadline < now]:
            connection.expire()
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep, loop)

    async def _wait_until(self, condition: Callable[[], bool], seconds: float = _GRACE_SECONDS) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():  # noqa: ASYNC110 - only while the process ends
                    await asyncio.sleep(_POLL_SECONDS)
