"""Owns what the reconciler says to the hub's system account: push, look up and delete account JWTs, look after servers.

The answers of NATS' claims API come from every server with a full resolver, so each request is sent once and its
answers are gathered until all servers known to run one have spoken. Which those are is asked with CLAIMS.LIST.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from edgefarm.errors import NatsRefused, NatsUnavailable
from edgefarm.nats import jwt
from edgefarm.nats.templates import CONTROLLER_INBOX, SERVER_RELOAD, SERVERS_STATE, SERVERS_STREAMS
from reconciler.adapters.leafz import leafs_in
from reconciler.adapters.natsconnection import Connection, ConnectionLostError, Enough, check_url, wants_tls
from reconciler.adapters.serverz import check_reloaded, state_in, streams_in
from reconciler.ports import AccountOnServer, HubServerState, LeafListener, LeafOnHub

#: Gives a user JWT and its seed for a user of the system account; called at each login, so both are always fresh.
CredentialProvider = Callable[[], Awaitable[tuple[str, str]]]

_UPDATE: Final = "$SYS.REQ.CLAIMS.UPDATE"
_DELETE: Final = "$SYS.REQ.CLAIMS.DELETE"
_LIST: Final = "$SYS.REQ.CLAIMS.LIST"
_LOOKUP: Final = "$SYS.REQ.ACCOUNT.{}.CLAIMS.LOOKUP"
_LEAFZ: Final = "$SYS.REQ.SERVER.PING.LEAFZ"
#: Clients and leafs that come and go in an account, each server telling of its own.
_COMING_AND_GOING: Final = ("$SYS.ACCOUNT.{}.CONNECT", "$SYS.ACCOUNT.{}.DISCONNECT")

#: Seconds after the last answer to CLAIMS.LIST before we believe that no further server will answer.
_QUIET: Final = 0.3
#: Seconds for which the list of servers is taken to be right; a server that left is noticed when it does not answer.
_SERVERS_VALID: Final = 60.0


class SystemClient:
    """A user of the hub's system account (implements `NatsSystem` and `NatsServers` of `reconciler.ports`).

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
        on_leafs: LeafListener | None = None,
    ) -> None:
        """`ca_bundle` is PEM text (None: the system's roots); `timeout` is in seconds, for each login and answer.

        `on_leafs` is called while we are logged in, when a leaf comes or goes, and after each login, before which some
        may have done so unnoticed.

        ValueError when there is no URL or one of them cannot be read.
        """
        if not urls:
            raise ValueError("SystemClient needs at least one URL")
        for url in urls:
            check_url(url)
        self._urls = tuple(urls)
        self._credentials = credentials
        self._tls = ssl.create_default_context(cadata=ca_bundle) if ca_bundle or wants_tls(urls) else None
        self._timeout = timeout
        self._on_leafs = on_leafs
        self._connection: Connection | None = None
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

    async def leafs(self) -> Sequence[LeafOnHub]:
        """All leaf connections of all servers of the hub; NatsUnavailable when one of these does not tell."""
        expected = (await self._known_servers()).keys()
        answers = await self._ask(_LEAFZ, b"", lambda got: expected <= _servers_of(got))
        await self._check_all_answered(_servers_of(answers), expected)
        return [leaf for data in answers for leaf in leafs_in(data)]

    async def states(self) -> Sequence[HubServerState]:
        """What each server with a full resolver says about itself; one that has just left or come may be missing."""
        states = [state_in(data) for data in await self._ask_all(SERVERS_STATE)]
        return sorted(states, key=lambda state: state.name)

    async def stored_streams(self) -> int:
        """How many streams JetStream has on all servers; NatsUnavailable when one of these does not tell."""
        answers = await self._ask_all(SERVERS_STREAMS)
        await self._check_all_answered(_servers_of(answers), (await self._known_servers()).keys())
        return sum(streams_in(data) for data in answers)

    async def reload(self, server: str) -> None:
        """Have one server read its configuration again; RestartNeeded, NatsRefused and NatsUnavailable with its words.

        Our user needs rights that installations of earlier versions did not give: without them nobody answers.
        """
        answers = await self._ask(SERVER_RELOAD.replace("*", server), b"", bool)
        if not answers:
            raise NatsUnavailable(f"The NATS server {server} did not say within {self._timeout:g} s that it reloaded.")
        check_reloaded(answers[0])

    async def servers(self) -> Sequence[str]:
        """Names of the servers that run a full resolver, asked anew."""
        return sorted((await self._known_servers(refresh=True)).values())

    async def close(self) -> None:
        """Close the connection; the client may be used again and then connects anew."""
        async with self._connecting:
            if self._connection is not None:
                await self._connection.close()
                self._connection = None

    async def _ask_all(self, subject: str) -> list[bytes]:
        """Answers of all servers, as far as they come in time."""
        expected = (await self._known_servers(refresh=True)).keys()
        return await self._ask(subject, b"", lambda got: expected <= _servers_of(got))

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
        await self._check_all_answered({answer.server for answer in answers}, expected)

    async def _check_all_answered(self, answered: Set[str], expected: Set[str]) -> None:
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

    async def _ask(self, subject: str, payload: bytes, enough: Enough, *, quiet: float | None = None) -> list[bytes]:
        # Every request may be repeated, so a connection that was lost on the way (a restarted server, expired
        # credentials) costs one more login and no error.
        for _ in range(2):
            connection = await self._connected()
            with contextlib.suppress(ConnectionLostError):
                answers = await connection.gather(subject, payload, enough, quiet=quiet)
                if not answers:
                    await connection.close()  # perhaps nobody is there any more: the next call logs in again
                return answers
        raise NatsUnavailable(f"The connection to NATS at {self._where} was lost twice during one request.")

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await self._connect()
                self._servers_until = 0.0
                if self._on_leafs is not None:
                    self._on_leafs()
            return self._connection

    async def _connect(self) -> Connection:
        problems = []
        for url in self._urls:
            token, seed = await self._credentials()
            try:
                connection = await Connection.open(url, token, seed, self._tls, self._timeout, inbox=CONTROLLER_INBOX)
                await self._listen(connection, token)
            except NatsUnavailable as error:
                problems.append(str(error))
            except ConnectionLostError:
                problems.append(f"The connection to NATS at {url} was lost at once.")
            else:
                return connection
        raise NatsUnavailable(" ".join(problems))

    async def _listen(self, connection: Connection, token: str) -> None:
        if self._on_leafs is not None:
            account = jwt.decode(token)["nats"]["issuer_account"]
            await connection.listen((subject.format(account) for subject in _COMING_AND_GOING), self._on_leafs)


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
