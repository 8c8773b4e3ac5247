"""Owns one login of the agent at a NATS server: connecting, publishing, receiving, noticing the end. The only importer
of nats-py here, whose own reconnecting is not used: it would come with the same credentials, and give up for good when
these have expired."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from agent.credentials import Credentials
from edgefarm.errors import NatsRefused, NatsUnavailable
from edgefarm.nats import nkeys

#: Seconds until the server must have accepted us, and until it must have taken what was published.
_PATIENCE: Final = 10.0
#: Seconds between pings; a server that misses two is given up.
_PING_INTERVAL: Final = 15
#: Seconds for closing a socket politely. nats-py never returns from closing one whose TLS handshake failed.
_GOODBYE: Final = 1.0
#: How the protocol says, in its `-ERR`, that the credentials are the problem.
_REFUSALS: Final = (
    "authorization violation",
    "user authentication expired",
    "user authentication revoked",
    "account authentication expired",
)


@dataclass(frozen=True)
class Received:
    """A message. `unheard`: it is the server's own, which says that nobody listens to what we published."""

    subject: str
    headers: Mapping[str, str]
    data: bytes = field(repr=False)
    unheard: bool = False


class NatsConnection:
    """One login. `ended` is set when it is over, whatever ended it; `reason` then says what did."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        self.ended = asyncio.Event()
        self.reason = "closed"
        self._complain = complain
        self._client = Client()
        self._open = False

    @classmethod
    async def open(
        cls, urls: Sequence[str], credentials: Credentials, tls: ssl.SSLContext, complain: Callable[[str], None]
    ) -> NatsConnection:
        """Log in at the first of the servers that accepts us; `complain` is told what a server refuses later on.

        Raises NatsRefused when a server says that our credentials are no longer good, else NatsUnavailable.
        """
        failures: list[NatsRefused | NatsUnavailable] = []
        for url in urls:
            connection = cls(complain)
            try:
                await connection._connect(url, credentials, tls)
            except (NatsRefused, NatsUnavailable) as error:
                failures.append(error)
            else:
                return connection
        refused = next((error for error in failures if isinstance(error, NatsRefused)), None)
        raise refused or NatsUnavailable(" ".join(str(error) for error in failures))

    async def subscribe(self, subject: str, receive: Callable[[Received], None]) -> None:
        """Hand what is published there to `receive`; return when the server knows."""

        async def deliver(message: Msg) -> None:
            headers = message.headers or {}
            receive(Received(message.subject, headers, message.data, unheard=headers.get("Status") == "503"))

        await self._guarded(self._client.subscribe(subject, cb=deliver))
        await self.flush()

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message; NatsUnavailable when the connection is over, NatsRefused when it is too large."""
        await self._guarded(self._client.publish(subject, payload, reply=reply, headers=headers))

    async def flush(self) -> None:
        """Return when the server has taken what was published; NatsUnavailable when it does not."""
        # nats-py writes the PING of a flush ahead of what is still in its buffer, so only the second one is a barrier.
        for _ in range(2):
            await self._guarded(self._client.flush(int(_PATIENCE)))

    async def close(self) -> None:
        """End it; a server that does not say goodbye is not waited for."""
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(_GOODBYE):
                await self._client.close()
        self.ended.set()

    async def _connect(self, url: str, credentials: Credentials, tls: ssl.SSLContext) -> None:
        options: dict[str, Any] = {
            "servers": [url],
            "name": "edgefarm-network agent",
            "tls": tls if url.startswith(("tls://", "wss://")) else None,
            "user_jwt_cb": credentials.jwt.encode,
            "signature_cb": lambda nonce: self._sign(nonce, credentials.seed, url),
            "error_cb": self._note,
            "closed_cb": self._end,
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,  # 0 would mean that an unreachable server is tried for ever
            "reconnect_time_wait": 0,
            "connect_timeout": _PATIENCE,
            "ping_interval": _PING_INTERVAL,
            "max_outstanding_pings": 2,
        }
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._client.connect(**options)
                self._check_encrypted(url)
        except asyncio.CancelledError:
            await self.close()
            raise
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            # nats-py says only that no server is left; why is what it said before.
            reason = self.reason if isinstance(error, nats.errors.NoServersError) else _words(error)
            await self.close()
            if any(refusal in reason.lower() for refusal in _REFUSALS):
                raise NatsRefused(f"NATS at {url} does not accept this agent's credentials: {reason}.") from error
            raise NatsUnavailable(f"Cannot log in to NATS at {url}: {reason}.") from error
        self._open = True

    async def _guarded(self, call: Awaitable[object]) -> None:
        try:
            await call
        except nats.errors.MaxPayloadError as error:
            raise NatsRefused(f"NATS accepts messages of {self._client.max_payload} bytes only.") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise NatsUnavailable(f"The connection to NATS is lost: {_words(error)}.") from error

    def _sign(self, nonce: str, seed: str, url: str) -> bytes:
        """Prove who we are, but not to somebody in between."""
        self._check_encrypted(url)
        return base64.b64encode(nkeys.sign(seed, nonce.encode()))

    def _check_encrypted(self, url: str) -> None:
        """nats-py goes on in plain text with a server that does not ask for TLS, whatever the URL says; such a server
        need not ask for a signature either."""
        if url.startswith("tls://") and not self._client._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError

    async def _note(self, error: Exception) -> None:
        self.reason = _words(error)
        if self._open:
            self._complain(self.reason)

    async def _end(self) -> None:
        last = self._client.last_error
        if last is not None:
            self.reason = _words(last)
        self.ended.set()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not isinstance(error, nats.errors.Error):
        return f"no answer within {_PATIENCE:g} s"
    return str(error).removeprefix("nats: ") or type(error).__name__
