"""Owns the life of the agent: credentials from Vault, a connection to NATS, and what to do when either is lost.

Vault, NATS and the reconciler may all be away, in any order: what works is kept, and what is lost is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from agent.backoff import Backoff
from agent.bus import Bus, Services
from agent.credentials import Credentials, Login
from agent.natsclient import NatsConnection, Received
from edgefarm import agentbus
from edgefarm.errors import EdgefarmError, NatsRefused, NatsUnavailable

#: Seconds between looks at the wall clock: it may be set, and machines sleep.
_LOOK: Final = 60.0
#: Seconds that a replaced connection stays for its successor to be registered.
_HANDOVER: Final = 30.0
#: Seconds for the answers to what is ended by SIGTERM.
_LAST_ANSWERS: Final = 2.0


@dataclass(frozen=True)
class Pace:
    """Seconds of the first and the longest wait between attempts."""

    first: float = 1.0
    most: float = 30.0

    def backoff(self) -> Backoff:
        """A series of waits."""
        return Backoff(self.first, self.most, random.random)


class Session:
    """One connection, with what is said over it. `over` is set when it has ended."""

    def __init__(
        self, credentials: Credentials, connection: NatsConnection, bus: Bus, log: structlog.stdlib.BoundLogger
    ) -> None:
        self.credentials = credentials
        self.bus = bus
        self._log = log
        self._connection = connection
        self._registering = asyncio.create_task(self._register())

    @classmethod
    async def open(cls, credentials: Credentials, tls: ssl.SSLContext, services: Services, backoff: Backoff) -> Session:
        """Connect and register; NatsRefused when the credentials are no longer good, else NatsUnavailable."""

        def complain(reason: str) -> None:
            services.log.warning("NATS complains", reason=reason)

        # In any order, so that agents spread over the servers.
        urls = random.sample(credentials.urls, len(credentials.urls))
        connection = await NatsConnection.open(urls, credentials, tls, complain)
        bus = Bus(credentials.nkey, connection, services, backoff)

        def receive(message: Received) -> None:
            bus.receive(message.subject, message.headers, message.data, unheard=message.unheard)

        try:
            await connection.subscribe(agentbus.to_agent(credentials.nkey), receive)
        except BaseException:
            await connection.close()
            raise
        return cls(credentials, connection, bus, services.log)

    @property
    def over(self) -> asyncio.Event:
        """Set when the connection has ended."""
        return self._connection.ended

    @property
    def reason(self) -> str:
        """What ended it."""
        return self._connection.reason

    async def fall_silent(self) -> None:
        """Say nothing of our own any more, but go on answering."""
        self._registering.cancel()
        await asyncio.gather(self._registering, return_exceptions=True)

    async def close(self, seconds: float) -> None:
        """End it, after at most so many seconds for answers that are due."""
        await self.fall_silent()
        if not self.over.is_set():
            await self.bus.finish(seconds)
        await self._connection.close()

    async def _register(self) -> None:
        try:
            await self.bus.keep_registered()
        except NatsUnavailable:
            pass  # the client of NATS notices, too, but not always at once
        except Exception:  # noqa: BLE001 (worker boundary)
            self._log.exception("registering ended unexpectedly")
        await self._connection.close()


class Agent:
    """Keeps one registered session, whatever happens around it."""

    def __init__(
        self,
        login: Login,
        tls: ssl.SSLContext,
        services: Services,
        *,
        clock: Callable[[], float],
        pace: Pace = Pace(),
    ) -> None:
        """`clock`: Unix seconds."""
        self._login = login
        self._tls = tls
        self._services = services
        self._clock = clock
        self._pace = pace
        self._backoff = pace.backoff()
        self._renewal = pace.backoff()
        self._credentials: Credentials | None = None
        self._renew_at = 0.0
        self._session: Session | None = None
        self._replaced: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set; then end running commands, send their answers and disconnect."""
        tasks = [asyncio.create_task(self._work()), asyncio.create_task(stop.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what no part of the work expected
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()

    async def _work(self) -> None:
        while True:
            await self._rest(await self._step())

    async def _step(self) -> float:
        """Do what is due; seconds until something is due again."""
        lost = self._session is not None and self._session.over.is_set()
        if lost:
            self._forget_lost()
            return self._backoff.next()
        try:
            credentials = await self._current_credentials()
            if self._session is None or self._session.credentials is not credentials:
                await self._connect(credentials)
        except NatsRefused as error:
            self._trouble(error)
            # Try to get new ones, but keep these: the refusal may pass, and Vault may be away.
            self._renew_at = 0.0
            return self._backoff.next()
        except EdgefarmError as error:
            self._trouble(error)
            return self._backoff.next()
        return max(0.0, self._renew_at - self._clock())

    async def _current_credentials(self) -> Credentials:
        """Those we have, renewed when it is time; while Vault cannot renew them, the old ones until they expire."""
        held, now = self._credentials, self._clock()
        if held is not None and now < min(self._renew_at, held.expires_at):
            return held
        try:
            fresh = await asyncio.to_thread(self._login.issue, now)
        except EdgefarmError as error:
            self._services.metrics.logins.labels("failed").inc()
            if held is None or now >= held.expires_at:
                raise
            self._renew_at = now + self._renewal.next()
            self._services.log.warning("the credentials cannot be renewed; the old ones still hold", reason=str(error))
            return held
        self._renewal.reset()
        self._services.metrics.logins.labels("ok").inc()
        self._services.log.info("logged in to Vault", renew_in=round(fresh.renew_at - now))
        self._credentials, self._renew_at = fresh, fresh.renew_at
        return fresh

    async def _connect(self, credentials: Credentials) -> None:
        """Open a session with these credentials. The one before serves until then, and ends when it is replaced."""
        connections = self._services.metrics.connections
        try:
            session = await Session.open(credentials, self._tls, self._services, self._pace.backoff())
        except EdgefarmError:
            connections.labels("failed").inc()
            raise
        connections.labels("ok").inc()
        self._services.log.info("connected to NATS", nkey=credentials.nkey)
        before, self._session = self._session, session
        if before is not None:
            # At once: a late heartbeat with the old key could take the registration back from the new one.
            await before.fall_silent()
            task = asyncio.create_task(self._replace(before, session))
            self._replaced.add(task)
            task.add_done_callback(self._replaced.discard)

    async def _replace(self, before: Session, after: Session) -> None:
        """End a session when its successor has taken over, and what it was asked has been answered."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HANDOVER):
                    await after.bus.registered.wait()
            await before.bus.finish(self._services.executor.settings.timeout)
        finally:
            await before.close(_LAST_ANSWERS)

    def _forget_lost(self) -> None:
        session, self._session = self._session, None
        assert session is not None
        if session.bus.registered.is_set():
            self._backoff.reset()
        self._trouble(NatsUnavailable(f"The connection to NATS is lost: {session.reason}."))
        task = asyncio.create_task(session.close(0))
        self._replaced.add(task)
        task.add_done_callback(self._replaced.discard)

    def _trouble(self, error: EdgefarmError) -> None:
        """A session that stands makes us reachable, whatever else goes wrong."""
        if self._session is None:
            self._services.presence.trouble(str(error))
        else:
            self._services.log.warning("the connection cannot be renewed; the old one still holds", reason=str(error))

    async def _rest(self, seconds: float) -> None:
        """Wait, but not past the end of the session."""
        over = self._session.over if self._session is not None else asyncio.Event()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, _LOOK)):
                await over.wait()

    async def _end(self) -> None:
        self._services.log.info("ending")
        await self._services.executor.close()
        sessions = [self._session.close(_LAST_ANSWERS)] if self._session is not None else []
        for task in self._replaced:
            task.cancel()
        await asyncio.gather(*sessions, *self._replaced, return_exceptions=True)
