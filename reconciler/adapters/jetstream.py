"""Owns the reconciler's logins to the accounts of networks, over which the JetStream API is spoken in raw JSON.

A network has one login at most. Logins are few: those that nobody uses make room for others, and end by themselves.
The API is described at https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import DomainUnreachable, JetStreamSilent, NatsUnavailable
from reconciler.adapters.natsconnection import Connection, ConnectionLostError, check_url, wants_tls
from reconciler.ports import JetStream, JetStreamAnswer

#: Gives a user JWT and its seed for a user of a network's account; called at each login.
NetworkCredentials = Callable[[str], Awaitable[tuple[str, str]]]

#: Asked when a domain does not answer: whether anybody does.
_ACCOUNT_INFO: Final = "INFO"


@dataclass(frozen=True)
class PoolLimits:
    """`logins` at most are open, `requests` at most under way. In seconds: how long a login may be used (less than its
    credentials are valid), how long it is kept without use, and how long a login or an answer may take."""

    logins: int = 32
    requests: int = 256
    login_seconds: float = 2400.0
    idle_seconds: float = 60.0
    patience: float = 5.0


@dataclass
class _Login:
    """One network's open connection, and when it ceases to be used for new requests."""

    connection: Connection
    until: float
    users: int = 0


class JetStreamPool:
    """Hands out the JetStream API of each network's account. It must be closed.

    A request waits while `limits.logins` other networks have requests under way.
    """

    def __init__(
        self,
        urls: Sequence[str],
        credentials: NetworkCredentials,
        *,
        ca_bundle: str | None = None,
        limits: PoolLimits | None = None,
    ) -> None:
        """`ca_bundle` is PEM text (None: the system's roots). ValueError when a URL cannot be read."""
        for url in urls:
            check_url(url)
        self.limits = limits or PoolLimits()
        self._urls = tuple(urls)
        self._credentials = credentials
        self._tls = ssl.create_default_context(cadata=ca_bundle) if ca_bundle or wants_tls(urls) else None
        self._rooms: dict[str, _Room] = {}
        self._vacancies = asyncio.Semaphore(self.limits.logins)
        self._waiting = 0
        self._background: set[asyncio.Task[None]] = set()
        self.requests = asyncio.Semaphore(self.limits.requests)

    def network(self, name: str) -> JetStream:
        """The JetStream API of this network's account; nothing is connected yet."""
        return _NetworkJetStream(self, name)

    @property
    def logins(self) -> int:
        """Logins that are open now."""
        return sum(room.login is not None for room in self._rooms.values())

    async def close(self) -> None:
        """End all logins; the pool may be used again and then logs in anew."""
        for room in list(self._rooms.values()):
            self._vacate(room)
        await asyncio.gather(*self._background)

    @contextlib.asynccontextmanager
    async def connection(self, network: str) -> AsyncIterator[Connection]:
        """The network's login, for as long as the caller needs it. NatsUnavailable when there can be none."""
        room = self._rooms.setdefault(network, _Room(network))
        room.visitors += 1
        try:
            login = await self._login(room)
            login.users += 1
            try:
                yield login.connection
            finally:
                login.users -= 1
                self._left(room, login)
        finally:
            room.visitors -= 1
            self._forget(room)

    async def _login(self, room: _Room) -> _Login:
        """The room's login, made anew when there is none that will do; all who ask meanwhile get the same one."""
        async with room.door:
            if room.login is not None and (room.login.connection.lost or self._now() >= room.login.until):
                self._vacate(room)
            if room.login is None:
                await self._find_vacancy()
                try:
                    room.login = _Login(await self._connect(room.network), self._now() + self.limits.login_seconds)
                except BaseException:
                    self._vacancies.release()
                    raise
            room.stay()
            return room.login

    async def _find_vacancy(self) -> None:
        self._waiting += 1
        try:
            if self._vacancies.locked():
                idle = [room for room in self._rooms.values() if room.idle]
                if idle:
                    self._vacate(min(idle, key=lambda room: room.since))
            await self._vacancies.acquire()
        finally:
            self._waiting -= 1

    def _left(self, room: _Room, login: _Login) -> None:
        """A request is over: the login is kept for the next one, unless it is spent or others wait for its place."""
        if login.users:
            return
        if room.login is not login:  # replaced while it was in use
            self._spawn(self._end(login))
        elif self._waiting or login.connection.lost:
            self._vacate(room)
        else:
            room.leave_at(self._now(), self.limits.idle_seconds, lambda: self._vacate(room))

    def _vacate(self, room: _Room) -> None:
        """Take the login out of use; it ends when its last request is over."""
        login, room.login = room.login, None
        room.stay()
        if login is not None and not login.users:
            self._spawn(self._end(login))
        self._forget(room)

    async def _end(self, login: _Login) -> None:
        try:
            await login.connection.close()
        finally:
            self._vacancies.release()

    def _forget(self, room: _Room) -> None:
        if room.login is None and not room.visitors:
            self._rooms.pop(room.network, None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _connect(self, network: str) -> Connection:
        problems = []
        for url in self._urls:
            token, seed = await self._credentials(network)
            try:
                return await Connection.open(url, token, seed, self._tls, self.limits.patience)
            except NatsUnavailable as error:
                problems.append(str(error))
        raise NatsUnavailable(" ".join(problems))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Room:
    """A network's place in the pool: its login, if any, and who comes and goes."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.login: _Login | None = None
        self.door = asyncio.Lock()
        self.visitors = 0
        self.since = 0.0
        self._departure: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether its login could be given to somebody else."""
        return self.login is not None and not self.login.users and not self.visitors

    def stay(self) -> None:
        """Somebody uses the login again."""
        if self._departure is not None:
            self._departure.cancel()
            self._departure = None

    def leave_at(self, now: float, delay: float, leave: Callable[[], None]) -> None:
        """Nobody uses the login since `now`: call `leave` after `delay` seconds of that."""
        self.stay()
        self.since = now
        self._departure = asyncio.get_running_loop().call_later(delay, leave)


class _NetworkJetStream:
    """One network's view of the pool; implements `reconciler.ports.JetStream`."""

    def __init__(self, pool: JetStreamPool, network: str) -> None:
        self._pool = pool
        self._network = network

    async def request(self, domain: str, api: str, body: Mapping[str, Any] | None = None) -> JetStreamAnswer:
        payload = b"" if body is None else json.dumps(body).encode()
        async with self._pool.requests:
            answers = await self._ask(domain, api, payload)
            if answers:
                return _read(answers[0], domain)
            # Silence is a fact about the domain only when the hub itself is heard.
            if domain != names.MAIN_DOMAIN and await self._ask(names.MAIN_DOMAIN, _ACCOUNT_INFO, b""):
                raise DomainUnreachable(f"No server of the JetStream domain {domain} answers: its node is away.")
        raise JetStreamSilent(
            f"JetStream of the hub does not answer in network {self._network}: it is off, out of storage or overloaded."
        )

    async def _ask(self, domain: str, api: str, payload: bytes) -> list[bytes]:
        # Every request that is made here may be repeated, so a login that was lost on the way (a restarted server, a
        # changed account) costs one more login and no error.
        for _ in range(2):
            async with self._pool.connection(self._network) as connection:
                with contextlib.suppress(ConnectionLostError):
                    return await connection.gather(f"$JS.{domain}.API.{api}", payload, bool, quiet=None)
        raise NatsUnavailable(f"The connection to NATS was lost twice during one request in network {self._network}.")


def _read(answer: bytes, domain: str) -> JetStreamAnswer:
    try:
        body = json.loads(answer)
        error = body.get("error") or {}
        return JetStreamAnswer(body, int(error.get("err_code", 0)), str(error.get("description", "")))
    except (ValueError, AttributeError, TypeError) as problem:
        raise NatsUnavailable(f"The JetStream domain {domain} answered with something unreadable.") from problem
