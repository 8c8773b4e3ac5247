"""Owns what the agent says and answers over one connection: registration, heartbeats, requests. It knows no client of
NATS, only how to publish."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from agent.backoff import Backoff
from agent.credentials import read_token
from agent.executor import Executor
from agent.metrics import Metrics
from agent.presence import Presence
from edgefarm import agentbus
from edgefarm.agentbus import Accepted, Denied, Network, Registration, Reply, Status
from edgefarm.agentparts import Answer, Request, RequestParts
from edgefarm.errors import InvalidMessage, NatsRefused, Unavailable

#: Heartbeats without an answer after which the reconciler is taken to be away.
_MISSED: Final = 3


class Post(Protocol):
    """What publishes."""

    async def publish(
        self, subject: str, payload: bytes, headers: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message; NatsUnavailable or NatsRefused."""

    async def flush(self) -> None:
        """Return when it was taken; NatsUnavailable."""


@dataclass(frozen=True)
class Host:
    """What a registration says of the host. `proof_token` is the file of the token that proves its node."""

    hostname: str
    program: str
    proof_token: Path


@dataclass(frozen=True)
class Services:
    """What all connections of one agent share."""

    host: Host
    executor: Executor
    presence: Presence
    metrics: Metrics
    log: structlog.stdlib.BoundLogger


class Bus:
    """The agent as it speaks with one nkey. `receive` must be called with every message on the agent's subjects."""

    def __init__(self, nkey: str, post: Post, services: Services, backoff: Backoff, *, patience: float = 10.0) -> None:
        """`patience`: seconds that a reply of the reconciler is waited for."""
        self.registered = asyncio.Event()
        self._nkey = nkey
        self._post = post
        self._services = services
        self._presence = services.presence
        self._log = services.log
        self._backoff = backoff
        self._patience = patience
        self._replies: dict[str, asyncio.Future[Reply | None]] = {}
        self._parts = RequestParts()
        self._running: dict[str, asyncio.Task[None]] = {}

    # -- what the reconciler must know ----------------------------------------------------------------------------

    async def keep_registered(self) -> None:
        """Register and send heartbeats, for ever. NatsUnavailable when the connection is over."""
        while True:
            trouble = await self._register()
            if trouble:
                self._presence.trouble(trouble)
                await asyncio.sleep(self._backoff.next())

    async def _register(self) -> str:
        """Register, and send heartbeats for as long as we are known; a sentence when we could not be registered."""
        try:
            payload = self._registration().encode()
        except Unavailable as error:
            return str(error)
        match await self._ask(agentbus.register_subject(self._nkey), payload):
            case Accepted() as accepted:
                self._backoff.reset()
                self._presence.registered(accepted.device)
                self.registered.set()
                await self._stay(accepted)
                return ""
            case Denied(reason, message):
                return f"the reconciler refuses the registration ({reason}): {message}"
            case None:
                return (
                    "connected to NATS, but the reconciler does not answer the registration: "
                    "does it run, and is mesh.enabled true in its configuration?"
                )

    def _registration(self) -> Registration:
        host, network = self._services.host, self._services.executor.settings
        return Registration(
            token=read_token(host.proof_token),
            hostname=host.hostname,
            program=host.program,
            network=network.enabled,
            containers=network.enabled and network.containers,
            new=self._presence.new,
        )

    async def _stay(self, accepted: Accepted) -> None:
        """Send heartbeats until the reconciler no longer knows us."""
        missed = 0
        while True:
            await asyncio.sleep(accepted.heartbeat_seconds)
            match await self._ask(agentbus.heartbeat_subject(self._nkey), b"{}"):
                case Accepted() as accepted:
                    missed = 0
                    self._presence.confirmed(accepted.device)
                case Denied(reason, message):
                    self._log.info("registering again", reason=reason, message=message)
                    return
                case None:
                    missed += 1
                    if missed >= _MISSED:
                        self._presence.trouble("the reconciler no longer answers; requests of it are still served")

    async def _ask(self, subject: str, payload: bytes) -> Reply | None:
        """The reconciler's reply, or None when there is none."""
        identifier = secrets.token_hex(8)
        reply: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        self._replies[identifier] = reply
        try:
            await self._post.publish(subject, payload, reply=agentbus.reply_subject(self._nkey, identifier))
            async with asyncio.timeout(self._patience):
                return await reply
        except TimeoutError:
            return None
        finally:
            del self._replies[identifier]

    # -- what the reconciler asks ---------------------------------------------------------------------------------

    def receive(self, subject: str, headers: Mapping[str, str], data: bytes, *, unheard: bool = False) -> None:
        """Take a message; `unheard` is the server's word that nobody listens to what we published."""
        try:
            address = agentbus.parse_subject(subject)
            if address.kind == "reply":
                reply = self._replies.get(address.id)
                if reply is not None and not reply.done():
                    reply.set_result(None if unheard else agentbus.decode_reply(data))
            elif address.kind == "request":
                self._take(self._parts.add(headers, data, asyncio.get_running_loop().time()))
        except InvalidMessage as error:
            self._log.warning("a message is ignored", subject=subject, reason=str(error))

    async def finish(self, seconds: float) -> None:
        """Return when what is under way has been answered, or time is up."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)

    def _take(self, request: Request | None) -> None:
        if request is None:
            return
        if request.id in self._running:
            self._log.info("a request is under way already", id=request.id)
            return
        task = self._running[request.id] = asyncio.create_task(self._serve(request))
        task.add_done_callback(lambda _: self._running.pop(request.id))

    async def _serve(self, request: Request) -> None:
        loop, log = asyncio.get_running_loop(), self._log.bind(id=request.id)
        began = loop.time()
        container = request.network is Network.CONTAINER
        try:
            answer = await self._services.executor.run(request.data, seconds=request.timeout, container=container)
            self._services.metrics.request(answer.status, loop.time() - began)
            await self._publish(request.id, answer)
            # The command's words are for the reconciler, which shows them where users look.
            say = log.debug if answer.status is Status.DONE else log.info
            say("request answered", status=answer.status.value, seconds=round(loop.time() - began, 3))
        except (Unavailable, NatsRefused) as error:
            log.warning("an answer could not be sent", reason=str(error))
        except Exception:
            log.exception("a request failed unexpectedly")

    async def _publish(self, identifier: str, answer: Answer) -> None:
        subject = agentbus.answer_subject(self._nkey, identifier)
        for message in answer.messages():
            await self._post.publish(subject, message.payload, message.headers)
        await self._post.flush()
