"""Owns one login to a NATS server, for requests with many answers and for talk; the only importer of nats-py."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgefarm.errors import NatsRefused, NatsUnavailable
from edgefarm.nats import nkeys

#: Seconds between pings; a peer that misses two is given up.
_PING_INTERVAL: Final = 15
#: Seconds for closing a socket politely. nats-py never returns from closing one whose TLS handshake failed.
_GOODBYE: Final = 0.5

#: Whether the answers so far are all that are awaited.
Enough = Callable[[Sequence[bytes]], bool]


@dataclass(frozen=True)
class Heard:
    """A message as it came; `reply` is empty where no answer is wanted."""

    subject: str
    reply: str
    headers: Mapping[str, str]
    data: bytes = field(repr=False)

    @property
    def nobody_listens(self) -> bool:
        """Whether the server says, where an answer was awaited, that there was nobody to hear the request."""
        return self.headers.get("Status") == "503"


#: Told every message of a subscription, one after the other.
Hearer = Callable[[Heard], Awaitable[None]]


class ConnectionLostError(Exception):
    """The connection ended while an answer was awaited."""


class Connection:
    """One login, from which requests with many answers can be made. nats-py may not reconnect it by itself: it would
    use the same credentials again, and it gives up for good when they have expired."""

    def __init__(self, patience: float, inbox: str) -> None:
        self._ended = asyncio.Event()
        self.lost = False
        self._patience = patience
        self._client = Client()
        self._last_error: Exception | None = None
        self._inbox = f"{inbox}.{secrets.token_hex(16)}"
        self._waiting: dict[str, asyncio.Queue[Msg | None]] = {}

    @classmethod
    async def open(
        cls, url: str, jwt: str, seed: str, tls: ssl.SSLContext | None, patience: float, *, inbox: str = "_INBOX"
    ) -> Connection:
        """Log in within `patience` seconds, else raise NatsUnavailable. Answers come to subjects below `inbox`; where
        that is empty there can be no `gather`."""
        connection = cls(patience, inbox)
        options: dict[str, Any] = {
            "servers": [url],
            "name": "edgefarm-network reconciler",
            "tls": tls,
            "user_jwt_cb": jwt.encode,
            "signature_cb": lambda nonce: connection._sign(nonce, seed, url),
            "error_cb": connection._remember,
            "closed_cb": connection._end,
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,  # 0 would mean that an unreachable server is tried for ever
            "reconnect_time_wait": 0,
            "connect_timeout": patience,
            "ping_interval": _PING_INTERVAL,
            "max_outstanding_pings": 2,
        }
        try:
            async with asyncio.timeout(patience):
                await connection._client.connect(**options)
                connection._check_encrypted(url)
                if inbox:
                    await connection._client.subscribe(f"{connection._inbox}.*", cb=connection._receive)
        except asyncio.CancelledError:
            await connection.close()
            raise
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await connection.close()
            cause = error if not isinstance(error, nats.errors.NoServersError) else connection._last_error or error
            reason = str(cause) or f"no answer within {patience:g} s"
            raise NatsUnavailable(f"Cannot log in to NATS at {url}: {reason.removeprefix('nats: ')}.") from error
        return connection

    async def gather(self, subject: str, payload: bytes, enough: Enough, *, quiet: float | None) -> list[bytes]:
        """The answers to one request in order of arrival: until `enough` of them, or time is up, or (if given) `quiet`
        seconds have passed since the last one."""
        if self.lost:
            raise ConnectionLostError
        # At random, because others than the server that is asked may see where its answer goes.
        reply = f"{self._inbox}.{secrets.token_hex(16)}"
        queue = self._waiting[reply] = asyncio.Queue()
        answers: list[bytes] = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience) as deadline:
                    await self._client.publish(subject, payload, reply=reply)
                    while not enough(answers):
                        message = await queue.get()
                        if message is None:
                            raise ConnectionLostError
                        if message.headers and message.headers.get("Status") == "503":  # nobody listens to the subject
                            break
                        answers.append(message.data)
                        if quiet is not None:
                            deadline.reschedule(asyncio.get_running_loop().time() + quiet)
        except nats.errors.MaxPayloadError as error:
            raise self._too_large(payload) from error
        except nats.errors.Error as error:
            self.lost = True  # before the client itself says so, which may be after the next request
            raise ConnectionLostError from error
        finally:
            del self._waiting[reply]
        return answers

    async def listen(self, subjects: Iterable[str], heard: Callable[[], None]) -> None:
        """Call `heard` for every message on these subjects; one that we may not subscribe to stays silent."""

        async def receive(_: Msg) -> None:
            heard()

        try:
            for subject in subjects:
                await self._client.subscribe(subject, cb=receive)
        except nats.errors.Error as error:
            raise ConnectionLostError from error

    async def hear(self, subject: str, hearer: Hearer) -> None:
        """Have every message on a subject told to `hearer` once the server has taken note."""

        async def receive(message: Msg) -> None:
            await hearer(Heard(message.subject, message.reply, message.headers or {}, message.data))

        try:
            await self._client.subscribe(subject, cb=receive)
            for _ in range(2):  # the first PING overtakes what is still in the client's buffer
                await self._client.flush(max(1, int(self._patience)))
        except (nats.errors.Error, OSError) as error:
            raise ConnectionLostError from error

    async def say(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Publish one message. NatsRefused when it is larger than the server accepts."""
        if self.lost:
            raise ConnectionLostError
        try:
            await self._client.publish(subject, data, reply=reply, headers=dict(headers) if headers else None)
        except nats.errors.MaxPayloadError as error:
            raise self._too_large(data) from error
        except (nats.errors.Error, OSError) as error:
            raise ConnectionLostError from error

    async def ended(self) -> None:
        """Return when the connection is over."""
        await self._ended.wait()

    async def close(self) -> None:
        """End it; a peer that does not say goodbye is not waited for."""
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(_GOODBYE):
                await self._client.close()
        await self._end()

    def _sign(self, nonce: str, seed: str, url: str) -> bytes:
        """Prove who we are, but not to somebody in between."""
        self._check_encrypted(url)
        return base64.b64encode(nkeys.sign(seed, nonce.encode()))

    def _check_encrypted(self, url: str) -> None:
        """nats-py goes on in plain text with a peer that does not ask for TLS, whatever the URL says; such a peer need
        not ask for a signature either."""
        if wants_tls([url]) and not self._client._server_info.get("tls_required"):
            raise nats.errors.SecureConnRequiredError

    def _too_large(self, payload: bytes) -> NatsRefused:
        return NatsRefused(f"NATS accepts messages of {self._client.max_payload} bytes, not of {len(payload)}.")

    async def _receive(self, message: Msg) -> None:
        queue = self._waiting.get(message.subject)
        if queue is not None:
            queue.put_nowait(message)

    async def _remember(self, error: Exception) -> None:
        self._last_error = error

    async def _end(self) -> None:
        self.lost = True
        self._ended.set()
        for queue in self._waiting.values():
            queue.put_nowait(None)


def check_url(url: str) -> None:
    """Raise ValueError when this is no URL that nats-py can read (without a port it takes 4222)."""
    problem = f"{url!r} is no URL of a NATS server: write one like tls://nats.example:4222"
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls", "ws", "wss") or not parts.hostname:
        raise ValueError(problem)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(problem) from None


def wants_tls(urls: Iterable[str]) -> bool:
    """Whether any of these URLs asks for encryption."""
    return any(url.startswith(("tls://", "wss://")) for url in urls)
