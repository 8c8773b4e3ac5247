"""Owns the reconciler's connection to the agents' account: hears them all, answers them, and asks one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from edgefarm import agentbus
from edgefarm.agentbus import Denied, Reply
from edgefarm.agentparts import Answer, AnswerParts, Request
from edgefarm.errors import AgentUnavailable, EdgefarmError, InvalidMessage, NatsUnavailable
from reconciler.adapters.natsconnection import Connection, ConnectionLostError, Heard, wants_tls

#: Gives a user JWT and its seed; called at each login.
AgentCredentials = Callable[[], Awaitable[tuple[str, str]]]

#: Bytes of an answer: what a gateway tells about some thirty thousand peers. A host may be in wrong hands.
_LARGEST_ANSWER: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class BusTarget:
    """Where the hub is; `ca_bundle` is PEM text (None: the system's roots)."""

    urls: tuple[str, ...]
    ca_bundle: str | None


@dataclass(frozen=True)
class BusPace:
    """In seconds: how long a login is used (less than its credentials are valid), how long one may take, how long to
    wait after one that failed, and how long an answer may be on its way beside the time that the command may take."""

    login: float = 2400.0
    patience: float = 5.0
    retry: float = 2.0
    travel: float = 5.0


@dataclass(frozen=True)
class BusLimits:
    """How many registrations are looked into at a time, and how many may wait beside them."""

    reviews: int = 8
    waiting: int = 256


class Desk(Protocol):
    """Who answers agents, by their sessions."""

    async def register(self, session: str, data: bytes) -> Reply: ...

    def heartbeat(self, session: str) -> Reply: ...

    def lost(self, session: str) -> None:
        """Nobody hears what is said to this session."""
        ...


@dataclass
class _Pending:
    """A request that waits for its answer."""

    answer: asyncio.Future[Answer]
    parts: AnswerParts = field(default_factory=lambda: AnswerParts(_LARGEST_ANSWER))

    def fail(self, error: EdgefarmError) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(error)


@dataclass
class _Registering:
    """A registration that is looked into; `heard` is what its agent sent last."""

    heard: Heard
    task: asyncio.Task[None] | None = None


class AgentBus:
    """Connected while `run` runs and there is a target; implements `agents.AgentBus`.

    NATS has proven whose nkey is in the subject of each message, and nothing else about it.
    """

    def __init__(
        self,
        target: Callable[[], BusTarget | None],
        credentials: AgentCredentials,
        desk: Desk,
        *,
        log: structlog.stdlib.BoundLogger,
        pace: BusPace | None = None,
        limits: BusLimits | None = None,
    ) -> None:
        """Without a `target` nobody is connected; `look` says that it may have changed."""
        self._target = target
        self._credentials = credentials
        self._desk = desk
        self._log = log
        self._pace = pace or BusPace()
        self._limits = limits or BusLimits()
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._registering: dict[str, _Registering] = {}
        self._reviews = asyncio.Semaphore(self._limits.reviews)
        self._problem = ""
        #: How often we have logged in.
        self.logins = 0

    def look(self) -> None:
        """The target has perhaps changed."""
        self._changed.set()

    @property
    def connected(self) -> bool:
        """Whether agents can be heard now."""
        return self._connection is not None and not self._connection.lost

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        try:
            while True:
                self._changed.clear()
                target = self._target()
                if target is None:
                    await self._leave("There is no mesh any more.")
                    await self._changed.wait()
                    continue
                try:
                    connection = await self._renew(target)
                except (EdgefarmError, ConnectionLostError) as error:
                    self._complain(str(error) or "The connection was lost at once.")
                    await self._pause(self._pace.retry)
                else:
                    await self._stay(connection, target)
        finally:
            await self._stop_registering()
            await self._leave("The reconciler ends.")

    async def exchange(self, session: str, request: Request) -> Answer:
        """Ask an agent, and wait a little longer for its answer than the request may take.

        Raises AgentUnavailable when there is none, InvalidMessage when the request is too large.
        """
        connection = self._connection
        if connection is None or connection.lost:
            raise AgentUnavailable("The reconciler is not connected to the agents' account in NATS.")
        key = (session, request.id)
        pending = self._pending[key] = _Pending(asyncio.get_running_loop().create_future())
        subject, reply = agentbus.request_subject(session), agentbus.answer_subject(session, request.id)
        try:
            async with asyncio.timeout(request.timeout + self._pace.travel):
                for message in request.messages():
                    await connection.say(subject, message.payload, message.headers, reply=reply)
                return await pending.answer
        except TimeoutError:
            raise AgentUnavailable(f"The agent did not answer within {request.timeout:g} s.") from None
        except ConnectionLostError:
            raise AgentUnavailable("The connection to NATS was lost while the agent was asked.") from None
        finally:
            del self._pending[key]

    async def _renew(self, target: BusTarget) -> Connection:
        """Replace the connection by a new one. The old one is heard until then, so that no message is missed."""
        connection = await self._connect(target)
        old, self._connection = self._connection, connection
        self.logins += 1
        if self._problem or old is None:
            self._log.info("connected to the agents' account")
        self._problem = ""
        if old is not None:
            await old.close()
        return connection

    async def _connect(self, target: BusTarget) -> Connection:
        problems = []
        tls = (
            ssl.create_default_context(cadata=target.ca_bundle) if target.ca_bundle or wants_tls(target.urls) else None
        )
        for url in target.urls:
            token, seed = await self._credentials()
            try:
                connection = await Connection.open(url, token, seed, tls, self._pace.patience, inbox="")
            except NatsUnavailable as error:
                problems.append(str(error))
                continue
            try:
                await connection.hear(agentbus.FROM_ALL_AGENTS, self._receive)
            except BaseException:
                await connection.close()
                raise
            return connection
        raise NatsUnavailable(" ".join(problems))

    async def _stay(self, connection: Connection, target: BusTarget) -> None:
        """Return when there has to be a new connection."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.login):
                while self._target() == target and not connection.lost:
                    self._changed.clear()
                    await _first(connection.ended(), self._changed.wait())
        if connection.lost:
            self._give_up("The connection to NATS was lost.")
            self._complain("the connection was lost")

    async def _leave(self, why: str) -> None:
        connection, self._connection = self._connection, None
        self._give_up(why)
        if connection is not None:
            await connection.close()

    def _give_up(self, why: str) -> None:
        for pending in self._pending.values():
            pending.fail(AgentUnavailable(why))

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._log.warning("agents cannot be heard now", reason=problem)
        self._problem = problem

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _receive(self, heard: Heard) -> None:
        try:
            address = agentbus.parse_subject(heard.subject)
        except InvalidMessage:
            return
        match address.kind:
            case "answer":
                self._take_answer(address.nkey, address.id, heard)
            case "heartbeat":
                await self._reply(address.nkey, heard, self._desk.heartbeat(address.nkey))
            case "register":
                await self._take_registration(address.nkey, heard)

    def _take_answer(self, session: str, identifier: str, heard: Heard) -> None:
        """What nobody waits for (any more), or comes from another agent than the one that was asked, is dropped."""
        pending = self._pending.get((session, identifier))
        if pending is None or pending.answer.done():
            return
        if heard.nobody_listens:
            pending.fail(AgentUnavailable("The agent is not connected any more."))
            self._desk.lost(session)
            return
        try:
            answer = pending.parts.add(heard.headers, heard.data)
        except InvalidMessage as error:
            pending.fail(AgentUnavailable(f"The agent's answer cannot be read: {error}"))
            return
        if answer is not None:
            pending.answer.set_result(answer)

    async def _take_registration(self, session: str, heard: Heard) -> None:
        if len(heard.data) > agentbus.MAX_REGISTRATION:  # looked at now, because many may wait
            await self._reply(session, heard, Denied("InvalidRegistration", "The registration is too long."))
            return
        known = self._registering.get(session)
        if known is not None:
            known.heard = heard  # the agent has lost patience: the answer goes to where it waits now
            return
        if len(self._registering) >= self._limits.reviews + self._limits.waiting:
            await self._reply(session, heard, Denied("Busy", "Too many agents register at this moment: try again."))
            return
        registering = self._registering[session] = _Registering(heard)
        registering.task = asyncio.get_running_loop().create_task(self._register(session, registering))

    async def _register(self, session: str, registering: _Registering) -> None:
        try:
            async with self._reviews:
                reply = await self._desk.register(session, registering.heard.data)
        except Exception:  # noqa: BLE001 (boundary: one agent's trouble must not reach the others)
            self._log.exception("a registration failed unexpectedly", session=session)
            reply = Denied("InternalError", "The reconciler failed: its log says more.")
        finally:
            del self._registering[session]
        await self._reply(session, registering.heard, reply)

    async def _stop_registering(self) -> None:
        tasks = [each.task for each in self._registering.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._registering.clear()  # a task that was cancelled before it began has left its entry

    async def _reply(self, session: str, heard: Heard, reply: Reply) -> None:
        """Answer an agent, but nowhere else than where it alone listens: it chooses the reply subject itself."""
        connection = self._connection
        try:
            address = agentbus.parse_subject(heard.reply)
            if (address.nkey, address.kind) == (session, "reply") and connection is not None:
                await connection.say(heard.reply, reply.encode())
        except (InvalidMessage, ConnectionLostError, EdgefarmError):
            self._log.debug("an agent cannot be answered", session=session)


async def _first(*waiting: Awaitable[object]) -> None:
    """Return when one of these has; the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
