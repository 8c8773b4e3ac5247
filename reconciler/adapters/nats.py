"""Owns the connection to the hub's system account; the only importer of nats-py in the reconciler.

The answers of NATS' claims API come from every server with a full resolver, so each request is sent once and its
answers are gathered until all servers known to run one have spoken. Which those are is asked with CLAIMS.LIST.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgefarm.errors import NatsRefused, NatsUnavailable
from edgefarm.nats import nkeys
from reconciler.ports import AccountOnServer

#: Gives a user JWT and its seed for a user of the system account; called at each login, so both are always fresh.
CredentialProvider = Callable[[], Awaitable[tuple[str, str]]]

_UPDATE: Final = "$SYS.REQ.CLAIMS.UPDATE"
_DELETE: Final = "$SYS.REQ.CLAIMS.DELETE"
_LIST: Final = "$SYS.REQ.CLAIMS.LIST"
_LOOKUP: Final = "$SYS.REQ.ACCOUNT.{}.CLAIMS.LOOKUP"

#: Seconds after the last answer to CLAIMS.LIST before we believe that no further server will answer.
_QUIET: Final = 0.3
#: Seconds for which the list of servers is taken to be right; a server that left is noticed when it does not answer.
_SERVERS_VALID: Final = 60.0
#: Seconds between pings; a peer that misses two is given up.
_PING_INTERVAL: Final = 15

_Enough = Callable[[Sequence[bytes]], bool]


class SystemClient:
    """A user of the hub's system account (implements `reconciler.ports.NatsSystem`).

    Connects at the first call and again whenever the connection was lost or its credentials ran out. Every call ends:
    with the answer of all servers, or with NatsUnavailable. It must be closed.
    """

    def __init__(
        self,
        urls: Sequence[str],
        credentials: CredentialProvider,
        *,
        ca_bundle: str | None = None,
        timeout: float = 5.0,
    ) -> None:
        """`ca_bundle` is PEM text (None: the system's roots); `timeout` is in seconds, for each login and answer."""
        if not urls:
            raise ValueError("SystemClient needs at least one URL")
        self._urls = tuple(urls)
        self._credentials = credentials
        self._tls = ssl.create_default_context(cadata=ca_bundle) if ca_bundle or _wants_tls(urls) else None
        self._timeout = timeout
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._servers: Mapping[str, str] = {}
        self._servers_until = 0.0
        self._listing = asyncio.Lock()

    async def push(self, account_jwt: str) -> None:
        """Store an account JWT on every server; NatsRefused with the server's words when one reports an error.

        Success proves little (a server accepts a JWT of an operator that it does not trust): read it back.
        """
        await self._command(_UPDATE, account_jwt)

    async def delete(self, delete_claims_jwt: str) -> None:
        """Delete the accounts that the claims name on every server; an absent account is not an error."""
        await self._command(_DELETE, delete_claims_jwt)

    async def lookup(self, account: str) -> Sequence[AccountOnServer]:
        """The account's JWT as each server with a full resolver has stored it, None where it has none."""
        expected = await self._known_servers()
        answers = await self._ask(_LOOKUP.format(account), b"", lambda got: len(got) >= len(expected))
        if len(answers) < len(expected):
            expected = await self._known_servers(refresh=True)
            if len(answers) < len(expected):
                raise NatsUnavailable(
                    f"Only {len(answers)} of {len(expected)} NATS servers at {self._where} told "
                    f"what they know of account {account} within {self._timeout:g} s."
                )
        stored = [answer.decode() or None for answer in answers]
        if len(set(stored)) == 1:
            return [AccountOnServer(name, stored[0]) for name in sorted(expected.values())]
        return _attribute(stored, account, await self._list())

    async def servers(self) -> Sequence[str]:
        """Names of the servers that run a full resolver, asked anew."""
        return sorted((await self._known_servers(refresh=True)).values())

    async def close(self) -> None:
        """Close the connection; the client may be used again and then connects anew."""
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None

    @property
    def _where(self) -> str:
        return ", ".join(self._urls)

    async def _command(self, subject: str, token: str) -> None:
        """Send claims to all servers and raise unless all of them did what they say."""
        expected = (await self._known_servers()).keys()
        answers = [
            _Answer.parse(data)
            for data in await self._ask(subject, token.encode(), lambda got: expected <= _servers_of(got))
        ]
        refusals = sorted({f"{answer.name}: {answer.error}" for answer in answers if answer.error is not None})
        if refusals:
            raise NatsRefused(f"NATS refused the account claims ({'; '.join(refusals)}).")
        answered = {answer.server for answer in answers}
        if not expected <= answered:
            # A server that has left cannot answer; one that is still there must.
            now = await self._known_servers(refresh=True)
            silent = sorted(name for server, name in now.items() if server not in answered)
            if silent:
                raise NatsUnavailable(
                    f"No answer within {self._timeout:g} s from NATS server {', '.join(silent)} of {self._where}."
                )

    async def _known_servers(self, *, refresh: bool = False) -> Mapping[str, str]:
        """Id and name of each server with a full resolver; never empty."""
        async with self._listing:
            if refresh or time.monotonic() >= self._servers_until:
                self._servers = {answer.server: answer.name for answer in await self._list()}
                self._servers_until = time.monotonic() + _SERVERS_VALID
            return self._servers

    async def _list(self) -> list[_Answer]:
        answers = await self._ask(_LIST, b"", lambda _: False, quiet=_QUIET)
        if not answers:
            raise NatsUnavailable(
                f"No NATS server at {self._where} listed its accounts within {self._timeout:g} s: it needs a resolver "
                "of type full, and our user must belong to its system account."
            )
        return [_Answer.parse(data) for data in answers]

    async def _ask(self, subject: str, payload: bytes, enough: _Enough, *, quiet: float | None = None) -> list[bytes]:
        # Every request may be repeated, so a connection that was lost on the way (a restarted server, expired
        # credentials) costs one more login and no error.
        for _ in range(2):
            connection = await self._connected()
            with contextlib.suppress(_ConnectionLostError):
                return await connection.gather(subject, payload, enough, quiet=quiet)
        raise NatsUnavailable(f"The connection to NATS at {self._where} was lost twice during one request.")

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await self._connect()
                self._servers_until = 0.0
            return self._connection

    async def _connect(self) -> _Connection:
        problems = []
        for url in self._urls:
            jwt, seed = await self._credentials()
            try:
                return await _Connection.open(url, jwt, seed, self._tls, self._timeout)
            except NatsUnavailable as error:
                problems.append(str(error))
        raise NatsUnavailable(" ".join(problems))


class _ConnectionLostError(Exception):
    """The connection ended while an answer was awaited."""


class _Connection:
    """One login, from which requests with many answers can be made. nats-py may not reconnect it by itself: it would
    use the same credentials again, and it gives up for good when they have expired."""

    def __init__(self, patience: float) -> None:
        self.lost = False
        self._patience = patience
        self._client = Client()
        self._last_error: Exception | None = None
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Queue[Msg | None]] = {}

    @classmethod
    async def open(cls, url: str, jwt: str, seed: str, tls: ssl.SSLContext | None, patience: float) -> _Connection:
        """Log in within `patience` seconds, else raise NatsUnavailable."""
        connection = cls(patience)
        options: dict[str, Any] = {
            "servers": [url],
            "name": "edgefarm-network reconciler",
            "tls": tls,
            "user_jwt_cb": jwt.encode,
            "signature_cb": lambda nonce: base64.b64encode(nkeys.sign(seed, nonce.encode())),
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
                await connection._client.subscribe(f"{connection._inbox}.*", cb=connection._receive)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await connection.close()
            cause = error if not isinstance(error, nats.errors.NoServersError) else connection._last_error or error
            reason = str(cause) or f"no answer within {patience:g} s"
            raise NatsUnavailable(f"Cannot log in to NATS at {url}: {reason.removeprefix('nats: ')}.") from error
        return connection

    async def gather(self, subject: str, payload: bytes, enough: _Enough, *, quiet: float | None) -> list[bytes]:
        """The answers to one request in order of arrival: until `enough` of them, or time is up, or (if given) `quiet`
        seconds have passed since the last one."""
        if self.lost:
            raise _ConnectionLostError
        reply = f"{self._inbox}.{next(self._numbers)}"
        queue = self._waiting[reply] = asyncio.Queue()
        answers: list[bytes] = []
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._patience) as deadline:
                    await self._client.publish(subject, payload, reply=reply)
                    while not enough(answers):
                        message = await queue.get()
                        if message is None:
                            raise _ConnectionLostError
                        if message.headers and message.headers.get("Status") == "503":  # nobody listens to the subject
                            break
                        answers.append(message.data)
                        if quiet is not None:
                            deadline.reschedule(asyncio.get_running_loop().time() + quiet)
        except nats.errors.Error as error:
            raise _ConnectionLostError from error
        finally:
            del self._waiting[reply]
        return answers

    async def close(self) -> None:
        """End it; a peer that does not say goodbye is not waited for."""
        with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
            async with asyncio.timeout(1):
                await self._client.close()
        await self._end()

    async def _receive(self, message: Msg) -> None:
        queue = self._waiting.get(message.subject)
        if queue is not None:
            queue.put_nowait(message)

    async def _remember(self, error: Exception) -> None:
        self._last_error = error

    async def _end(self) -> None:
        self.lost = True
        for queue in self._waiting.values():
            queue.put_nowait(None)


@dataclass(frozen=True)
class _Answer:
    """What a server says to a claims request: who it is, its error if any, and the accounts it has (CLAIMS.LIST)."""

    server: str
    name: str
    error: str | None
    accounts: frozenset[str]

    @classmethod
    def parse(cls, data: bytes) -> _Answer:
        try:
            body = json.loads(data)
            server, error, accounts = body["server"], body.get("error"), body.get("data")
            return cls(
                server["id"],
                server["name"],
                None if error is None else str(error.get("description", error)),
                frozenset(accounts if isinstance(accounts, list) else ()),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NatsUnavailable("A NATS server answered a claims request with something unreadable.") from error


def _servers_of(answers: Iterable[bytes]) -> set[str]:
    return {_Answer.parse(data).server for data in answers}


def _attribute(stored: Sequence[str | None], account: str, lists: Sequence[_Answer]) -> list[AccountOnServer]:
    """Put names to JWTs that differ. Answers to a lookup are anonymous, so the servers' lists must tell who has none;
    who has which of several versions cannot be told."""
    without = sorted(answer.name for answer in lists if account not in answer.accounts)
    having = sorted(answer.name for answer in lists if account in answer.accounts)
    tokens = [token for token in stored if token is not None]
    if len(tokens) == len(having) and len(stored) - len(tokens) == len(without):
        if len(set(tokens)) > 1:
            having = [f"one of {', '.join(having)}"] * len(tokens)
        return [
            *(AccountOnServer(name, token) for name, token in zip(having, tokens, strict=True)),
            *(AccountOnServer(name, None) for name in without),
        ]
    # The servers changed between the two questions: say what was seen, and no more.
    anyone = f"one of {', '.join(sorted(answer.name for answer in lists))}"
    return [AccountOnServer(anyone, token) for token in stored]


def _wants_tls(urls: Iterable[str]) -> bool:
    return any(url.startswith(("tls://", "wss://")) for url in urls)
