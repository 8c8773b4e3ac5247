"""Answers agents that register or send heartbeats: has their tokens reviewed, and decides who speaks for a device.

Of two pods of one node the younger one speaks for its device, whoever registers last: while a DaemonSet replaces a pod
both may run. A pod that registers again replaces its own session. What a token's own dates say does not matter, because
the kubelet replaces tokens at any time, and the API server confirms none whose pod is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from edgefarm import names
from edgefarm.agentbus import REASON_UNKNOWN, Accepted, Denied, Registration, Reply
from edgefarm.errors import InvalidMessage, KubernetesRefused, Unavailable
from reconciler.agent_identity import Identity, identify
from reconciler.agents import AgentRegistry
from reconciler.ports import POD, ConnectedAgent, Kube, Object, TokenReviews

#: Seconds between two lines of the log about refusals: whoever has stolen a host can ask for any number of them.
_QUIET: Final = 1.0
#: Characters; tokens of the API server have about a thousand.
_LONGEST_TOKEN: Final = 16 * 1024


@dataclass(frozen=True)
class Clocks:
    """The time of day, and seconds that never go back."""

    date: Callable[[], datetime]
    seconds: Callable[[], float]


@dataclass(frozen=True)
class Cluster:
    """What the API server is asked: to review tokens, and about pods of the controller namespace."""

    reviews: TokenReviews
    kube: Kube
    namespace: str


class AgentAdmission:
    """Takes agents into the registry."""

    def __init__(
        self,
        registry: AgentRegistry,
        cluster: Cluster,
        clocks: Clocks,
        heartbeat_seconds: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Agents are told to send a heartbeat every `heartbeat_seconds`."""
        self._registry = registry
        self._cluster = cluster
        self._clocks = clocks
        self._heartbeat_seconds = heartbeat_seconds
        self._log = log
        self._complained_at = -_QUIET
        self._unsaid = 0

    async def register(self, session: str, data: bytes) -> Reply:
        """Take in the agent that speaks with this nkey, if what it sends proves who it is."""
        try:
            registration = Registration.decode(data)
        except InvalidMessage as error:
            return Denied("InvalidRegistration", str(error))
        reply = await self._admit(session, registration)
        if isinstance(reply, Accepted):
            self._log.info(
                "an agent has registered", device=reply.device, program=registration.program, session=session
            )
        else:
            self._complain(registration.hostname, reply)
        return reply

    def heartbeat(self, session: str) -> Reply:
        """Note that the agent is still there."""
        device = self._registry.heartbeat(session, self._clocks.seconds())
        if device is None:
            return Denied(REASON_UNKNOWN, "This session is not known here: register.")
        return Accepted(device, self._heartbeat_seconds)

    def lost(self, session: str) -> None:
        """Nobody listens to requests for this session any more."""
        self._registry.drop(session)

    async def _admit(self, session: str, registration: Registration) -> Reply:
        if len(registration.token) > _LONGEST_TOKEN:
            return Denied("TokenRefused", f"The token is longer than {_LONGEST_TOKEN} characters.")
        try:
            status = await self._cluster.reviews.review_token(registration.token, [names.AGENT_AUDIENCE])
            identity = identify(status, self._cluster.namespace)
            if isinstance(identity, Denied):
                return identity
            rival = await self._stronger_than(identity)
        except Unavailable as error:
            return Denied("KubernetesUnavailable", f"The token cannot be reviewed now: {error}")
        except KubernetesRefused as error:
            return Denied("KubernetesRefused", f"The reconciler may not have the token reviewed: {error}")
        if rival is not None:
            return rival
        self._registry.register(self._agent(session, identity, registration), identity, self._clocks.seconds())
        return Accepted(identity.device, self._heartbeat_seconds)

    def _complain(self, hostname: str, reply: Denied) -> None:
        now = self._clocks.seconds()
        if now - self._complained_at < _QUIET:
            self._unsaid += 1
            return
        # Whatever it says about itself is not proven, but helps to find the host.
        self._log.warning("an agent was refused", hostname=hostname, reason=reply.message, others_before=self._unsaid)
        self._complained_at, self._unsaid = now, 0

    async def _stronger_than(self, identity: Identity) -> Denied | None:
        """Why somebody else goes on speaking for the device, if so."""
        entry = self._registry.get(identity.device)
        if entry is None or entry.identity == identity:
            return None
        other = entry.identity
        if (other.role, other.node) != (identity.role, identity.node):
            return Denied(
                "NameTaken",
                f"The {other.role} agent of node {other.node} has the device name {identity.device}: rename a node.",
            )
        mine, theirs = await self._pod(identity), await self._pod(other)
        if theirs is None or (mine is not None and _age_rank(mine) >= _age_rank(theirs)):
            return None
        return Denied("Superseded", f"The younger pod {other.pod} speaks for {identity.device}.")

    async def _pod(self, identity: Identity) -> Object | None:
        """The pod that was meant, not another one under its name."""
        pod = await self._cluster.kube.get(POD, self._cluster.namespace, identity.pod)
        return pod if pod is not None and pod["metadata"].get("uid") == identity.pod_uid else None

    def _agent(self, session: str, identity: Identity, registration: Registration) -> ConnectedAgent:
        return ConnectedAgent(
            device=identity.device,
            role=identity.role,
            node=identity.node,
            session=session,
            network=registration.network,
            containers=registration.containers,
            new=registration.new,
            hostname=registration.hostname,
            registered_at=self._clocks.date(),
        )


def _age_rank(pod: Object) -> tuple[bool, str]:
    """Orders pods: those that are ending come first, then by when they were made (RFC 3339 in UTC sorts as text)."""
    metadata: dict[str, Any] = pod["metadata"]
    return "deletionTimestamp" not in metadata, str(metadata.get("creationTimestamp"))
