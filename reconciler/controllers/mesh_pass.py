"""One device in the mesh: gives it what it needs, has its host and its peers do it, and says what was observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from edgefarm import names
from edgefarm.api.edge_device import EdgeDevice
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported, EdgefarmError, InvalidMessage
from reconciler.context import Context
from reconciler.controllers import mesh_status
from reconciler.controllers.mesh_claims import Basis, Claims
from reconciler.controllers.mesh_devices import FoundDevice
from reconciler.controllers.mesh_hosts import ContainersUnsupported, MeshHosts
from reconciler.controllers.mesh_keys import MeshKeys, public_key
from reconciler.controllers.mesh_roster import Roster
from reconciler.controllers.mesh_status import DeviceStatus, Facts, Identity
from reconciler.desired.mesh import conditions, observed, paths
from reconciler.desired.mesh.claims import Refusal
from reconciler.desired.mesh.conditions import Tunnels
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation, SeenPeer
from reconciler.desired.mesh.requests import container_config
from reconciler.ports import Object
from reconciler.status import Condition

#: How often a device is looked at that has joined or changed lately, as its tunnels come up now; what lately is.
_SOON: Final = timedelta(seconds=3)
_LATELY: Final = timedelta(seconds=30)
#: What a host's agent may answer instead of an answer: facts about the host, and no reasons to stop the pass.
_HOST_ERRORS: Final = (AgentRefused, AgentUnavailable, InvalidMessage)


@dataclass(frozen=True)
class Subject:
    """The device of a pass: its object, its spec, whose it is, and its Node."""

    found: FoundDevice
    device: EdgeDevice
    identity: Identity
    node: Object | None

    @property
    def name(self) -> str:
        return self.found.name


@dataclass(frozen=True)
class Outcome:
    """What went wrong in a pass: networks and addresses that were refused, what the host answered instead of an answer,
    and a condition that says more than that. Not `observed`: what the host told before may not be true any more."""

    refusals: tuple[Refusal, ...] = ()
    error: EdgefarmError | None = None
    condition: Condition | None = None
    observed: bool = True

    @property
    def good(self) -> bool:
        """Whether the host did as it was told, so far."""
        return self.error is None and self.condition is None

    @property
    def configured(self) -> Condition:
        return self.condition or conditions.configured(self.error)


class MeshPass:
    """What the passes of all devices have in common."""

    def __init__(
        self, context: Context, hosts: MeshHosts, keys: MeshKeys, wake: Callable[[Iterable[str]], None]
    ) -> None:
        """`wake` has other devices looked at, by their names."""
        self._context = context
        self._hosts = hosts
        self._keys = keys
        self._wake = wake
        self._claims = Claims(context, wake)
        self._status = DeviceStatus(context)
        self._changed_at: dict[str, datetime] = {}

    async def bring_about(self, subject: Subject, roster: Roster) -> timedelta:
        """Let the device be in the mesh; return when to look again."""
        name = subject.name
        error = await self._observe(name, self._pace(name, roster), roster)
        seen = self._hosts.seen(name)
        addresses = seen.addresses if seen is not None else subject.found.told_addresses
        basis = Basis(subject.identity.role, subject.node, addresses)
        claim = await self._claims.claim(subject.found, subject.device, basis, roster)
        subject = replace(subject, found=claim.found)
        if claim.member is None:
            await self.keep_out(subject, [conditions.accepted(claim.refusals)], roster)
            return roster.configuration.observe_every
        member = self._as_known(claim.member, claim.found, roster)
        outcome = Outcome(claim.refusals, error, observed=error is None)
        if member.connected and outcome.good:
            member, outcome = await self._identify(member, outcome, roster)
        member, outcome = await self._settle_key(member, outcome, roster)
        member = replace(member, heard_at=self._heard_at(member, roster) or _still_heard(claim.found, member))
        await self._enter(member, roster)
        if member.connected and outcome.good and member.public_key:
            outcome = await self._configure(subject, member, outcome, roster)
        await self._look_at_gateways(name, roster)
        await self._tell(subject, member, outcome, roster)
        return self._next(name, roster)

    async def keep_out(self, subject: Subject, reasons: Sequence[Condition], roster: Roster) -> None:
        """Let the device not be in the mesh, and say why."""
        await self._observe(subject.name, roster.configuration.observe_every, roster)
        seen, agent = self._hosts.seen(subject.name), self._hosts.agent(subject.name)
        await self.leave(subject.name, roster, dismiss=seen is not None and bool(seen.ours))
        known = [conditions.agent_connected(connected=agent is not None), *reasons]
        if all(condition.type != conditions.READY for condition in reasons):
            known.append(conditions.ready(known))
        await self._status.write_outside(subject.found, subject.identity, known, connected=agent is not None)

    async def leave(self, name: str, roster: Roster, *, dismiss: bool, public_key: str = "") -> None:
        """Take the device out of the mesh: out of everybody's peers first, then, if it can be reached, off its host."""
        member, partners = roster.get(name), roster.partners(name)
        roster.remove(name)
        keys = {public_key, member.public_key if member is not None else ""}
        others = {other.name for other in (*roster.gateways, *partners)} - {name}
        await self._hosts.mention(sorted(others), keys, roster)
        if dismiss:
            await self._hosts.dismiss(name)
        roster.release(name)
        self._changed_at.pop(name, None)

    # -- the host ----------------------------------------------------------------------------------------------------

    async def _observe(self, name: str, max_age: timedelta, roster: Roster) -> EdgefarmError | None:
        try:
            await self._hosts.observe(name, max_age, roster)
        except _HOST_ERRORS as error:
            return error
        return None

    def _as_known(self, member: Member, found: FoundDevice, roster: Roster) -> Member:
        """The member with what is known of it besides its spec."""
        known = roster.get(member.name)
        told = str(found.status.get("publicKey") or "")
        return replace(
            member,
            public_key=known.public_key or told if known is not None else told,
            extended=known.extended if known is not None else roster.configuration.keys == "device",
            connected=self._hosts.agent(member.name) is not None,
        )

    async def _identify(self, member: Member, outcome: Outcome, roster: Roster) -> tuple[Member, Outcome]:
        """The member with the public key that its host has now; empty where it has none and we must not make one."""
        seen = self._hosts.seen(member.name)
        if seen is None:
            return member, outcome
        error: EdgefarmError | None = None
        if not seen.ours:
            try:
                seen = await self._hosts.introduce(member)
            except _HOST_ERRORS as refused:
                # An abbot without a key of its own may say no; it may say no for other reasons, too.
                error = refused
        if seen.extended:
            return replace(member, public_key=seen.public_key, extended=True), outcome
        member = replace(member, public_key="", extended=False)
        if roster.configuration.keys == "controller" and not isinstance(error, AgentUnavailable | AgentUnsupported):
            return replace(member, public_key=public_key(await self._keys.ensure(member.name))), outcome
        return member, replace(outcome, error=error, condition=None if error else mesh_status.key_needed())

    async def _settle_key(self, member: Member, outcome: Outcome, roster: Roster) -> tuple[Member, Outcome]:
        """A key is that of the oldest device that has it."""
        rival = roster.with_key(member.public_key)
        if rival is None or rival.name == member.name or rival.seniority > member.seniority:
            return member, outcome
        await self._isolate(member)
        return replace(member, public_key=""), replace(outcome, refusals=(*outcome.refusals, _key_taken(rival)))

    async def _configure(self, subject: Subject, member: Member, outcome: Outcome, roster: Roster) -> Outcome:
        """Have the host be as it shall be."""
        private = "" if member.extended else await self._keys.ensure(member.name)
        agent = self._hosts.agent(member.name)
        try:
            other = not member.extended and subject.found.status.get("publicKey") != member.public_key
            await self._hosts.bring(member, roster, private_key=private, other_key=other)
            if agent is not None and agent.containers and member.pod_cidrs:
                request = container_config(member, subject.device.pod.dns)
                await self._hosts.bring_containers(member.name, request, roster)
        except ContainersUnsupported:
            return replace(outcome, condition=mesh_status.no_containers())
        except _HOST_ERRORS as error:
            return replace(outcome, error=error)
        return outcome

    async def _isolate(self, member: Member) -> None:
        """A host with somebody else's key must not talk to anybody: packets for the other one would come to it."""
        seen = self._hosts.seen(member.name)
        if seen is not None and seen.peers:
            try:
                await self._hosts.introduce(member)
            except _HOST_ERRORS as error:
                self._context.log.info("a host could not be isolated yet", device=member.name, reason=str(error))

    # -- the others --------------------------------------------------------------------------------------------------

    async def _enter(self, member: Member, roster: Roster) -> None:
        """Let everybody whom it concerns know what has become of the member."""
        before, partners = roster.get(member.name), set(roster.partners(member.name))
        if before == member:
            return
        rival = roster.with_key(member.public_key)
        if rival is not None and rival.name != member.name:
            roster.remove(rival.name)
        roster.put(member)
        if member.gateway and (before is None or before.connected != member.connected):
            self._wake(each.name for each in roster.without_failover())
        if before is not None and replace(before, connected=member.connected) == member:
            return
        self._changed_at[member.name] = self._context.clock()
        keys = {member.public_key, before.public_key if before is not None else ""}
        concerned = {each.name for each in (*roster.gateways, *partners, *roster.partners(member.name))}
        await self._hosts.mention(sorted(concerned - {member.name}), keys, roster)

    async def _look_at_gateways(self, name: str, roster: Roster) -> None:
        """A device that comes up needs to know where gateways hear it."""
        if self._pace(name, roster) == _SOON:
            for gateway in roster.gateways:
                if gateway.name != name:
                    try:
                        await self._hosts.observe(gateway.name, _SOON, roster, wait=False)
                    except _HOST_ERRORS as error:
                        self._context.log.info("a gateway does not tell", device=gateway.name, reason=str(error))

    def _heard_at(self, member: Member, roster: Roster) -> str:
        return observed.heard_at(member.public_key, self._gateways_views(roster)) if member.public_key else ""

    def _gateways_views(self, roster: Roster) -> list[Observation]:
        views = (self._hosts.seen(gateway.name) for gateway in roster.gateways if self._hosts.agent(gateway.name))
        return [view for view in views if view is not None]

    # -- status ------------------------------------------------------------------------------------------------------

    async def _tell(self, subject: Subject, member: Member, outcome: Outcome, roster: Roster) -> None:
        heard = member.connected and outcome.observed and not isinstance(outcome.error, AgentUnavailable)
        seen = self._hosts.seen(member.name) if heard else None
        known = [conditions.accepted(outcome.refusals), conditions.agent_connected(connected=member.connected)]
        if member.connected:
            known.append(outcome.configured)
        views = [] if seen is not None and seen.extended else self._seen_by_gateways(member, roster)
        tunnels = Tunnels(seen, roster.gateways, self._expected(member), views)
        known.append(conditions.connected(member, tunnels))
        known.append(conditions.ready(known))
        peers = None if seen is None else paths.peer_paths(member, self._peers(member, seen, roster), seen)
        facts = Facts(member, self._hosts.seen(member.name), peers)
        await self._status.write_member(subject.found, subject.identity, facts, known)

    def _seen_by_gateways(self, member: Member, roster: Roster) -> list[SeenPeer]:
        views = self._gateways_views(roster)
        return [view.peers[member.public_key] for view in views if member.public_key in view.peers]

    def _peers(self, member: Member, seen: Observation, roster: Roster) -> list[Member]:
        found = (roster.with_key(key) for key in seen.peers)
        return [peer for peer in found if peer is not None and peer.name != member.name]

    def _expected(self, member: Member) -> int:
        return len(self._context.agents().all()) - 1 if member.role == names.ROLE_GATEWAY else 0

    # -- pace --------------------------------------------------------------------------------------------------------

    def _pace(self, name: str, roster: Roster) -> timedelta:
        """How old an observation of the device may be."""
        every = roster.configuration.observe_every
        changed = self._changed_at.get(name)
        return min(_SOON, every) if changed is not None and self._context.clock() - changed < _LATELY else every

    def _next(self, name: str, roster: Roster) -> timedelta:
        """A host that does not answer takes up a worker for as long as it is waited for, so it is asked less often."""
        if self._hosts.silent(name):
            return roster.configuration.observe_every
        pace, asked_at = self._pace(name, roster), self._hosts.asked_at(name)
        if asked_at is None or self._hosts.agent(name) is None:
            return pace
        return min(max(asked_at + pace - self._context.clock(), timedelta(seconds=1)), pace)


def _still_heard(found: FoundDevice, member: Member) -> str:
    """Where it was heard last, unless it has another key now."""
    same = found.status.get("publicKey") == member.public_key
    return str(found.status.get("endpoint") or "") if same else ""


def _key_taken(rival: Member) -> Refusal:
    return Refusal(
        "KeyTaken",
        f"its host has the same WireGuard key as {rival.name}, perhaps because its disk is a copy: remove "
        "/var/lib/abbot/keys on one of them and start abbot anew",
    )
