"""How the webhook uses uvicorn: one process with two servers, ended in order and in time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette

#: Longer than the API server keeps an idle connection (90 s), so that it is never we who close one it is about to use.
_KEEP_ALIVE_SECONDS: Final = 120
#: How long requests that have begun may take after the listener closed; the API server waits 5 s for us.
_GRACE_SECONDS: Final = 5.0
#: How long clients may take to agree to the end of their connections (TLS close_notify).
_GOODBYE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process, and does not wait for idle clients to hang up."""

    @classmethod
    def create(cls, app: Starlette, host: str, port: int, context: ssl.SSLContext | None = None) -> Server:
        """A server of `app`, over TLS when there is a context."""
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            ssl_context_factory=None if context is None else (lambda _config, _default: context),
        )
        return cls(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The composition root handles signals for both servers."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, let requests that have begun finish, and end every connection.

        uvicorn's own way waits for connections rather than for requests: an idle client that does not answer the end
        of its TLS connection would hold the process until the time limit.
        """
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        for remaining, seconds in (
            (self.server_state.tasks, _GRACE_SECONDS),
            (self.server_state.connections, _GOODBYE_SECONDS),
        ):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while remaining:  # noqa: ASYNC110 - uvicorn has no event for it
                        await asyncio.sleep(_POLL_SECONDS)
        for task in self.server_state.tasks:
            task.cancel()
