"""Asks and tells hosts through their agents: one request at a time to each, and what it was told last is remembered.

Passes of other devices do not wait for a host: they leave word which peers have changed, and who is talking to the
host, or comes next, tells it all of that in one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request, unpack_response
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported, EdgefarmError, InvalidMessage
from reconciler.concurrency import all_of
from reconciler.context import Context
from reconciler.controllers.mesh_roster import Roster
from reconciler.desired.mesh import observed, requests
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation
from reconciler.desired.mesh.peers import Peer
from reconciler.desired.mesh.requests import Ensure
from reconciler.ports import ConnectedAgent


class ContainersUnsupported(AgentUnsupported):
    """The host does not offer the network of containers, while its agent says that it runs some."""


@dataclass
class _Told:
    """What a host was told, without a private key; peers by public key, in the order of the request."""

    bare: Ensure
    peers: dict[str, Peer]

    @classmethod
    def of(cls, request: Ensure) -> _Told:
        bare = Ensure()
        bare.CopyFrom(request)
        for interface in bare.expected:
            interface.wireguard.ClearField("peers")
        peers = [peer for interface in request.expected for peer in interface.wireguard.peers]
        return cls(bare, {peer.public_key: peer for peer in peers})

    def whole(self) -> Ensure:
        request = Ensure()
        request.CopyFrom(self.bare)
        request.expected[0].wireguard.peers.extend(self.peers.values())
        return request


@dataclass
class _Host:
    """One host, in the present session of its agent. `told` None: nothing yet, or perhaps something else."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: str = ""
    #: Whether this process has told it anything, in whichever session; before, it is compared rather than told.
    met: bool = False
    told: _Told | None = None
    containers: bytes | None = None
    seen: Observation | None = None
    seen_at: datetime | None = None
    #: When it was asked last, whatever came of that; and whether its last request brought no answer.
    asked_at: datetime | None = None
    silent: bool = False
    #: Nothing was sent since it was seen.
    seen_is_current: bool = False
    #: Keys of peers that may have changed since it was told.
    changed: set[str] = field(default_factory=set)
    private_key: str = field(default="", repr=False)


class MeshHosts:
    """All hosts of the mesh, by the names of their devices."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._log: structlog.stdlib.BoundLogger = context.log
        self._hosts: dict[str, _Host] = {}

    def agent(self, device: str) -> ConnectedAgent | None:
        """The device's agent, if it is connected."""
        return self._context.agents().get(device)

    def seen(self, device: str) -> Observation | None:
        """What the host told last, in this process."""
        host = self._hosts.get(device)
        return None if host is None else host.seen

    def seen_at(self, device: str) -> datetime | None:
        """When that was."""
        host = self._hosts.get(device)
        return None if host is None else host.seen_at

    def asked_at(self, device: str) -> datetime | None:
        """When the host was asked last for all its interfaces, in this session."""
        host = self._hosts.get(device)
        return None if host is None else host.asked_at

    def silent(self, device: str) -> bool:
        """Whether the last request to the host, in this session, brought no answer."""
        host = self._hosts.get(device)
        return host is not None and host.silent

    def forget(self, device: str) -> None:
        """There is no such device any more."""
        self._hosts.pop(device, None)

    async def observe(self, device: str, max_age: timedelta, roster: Roster, *, wait: bool = True) -> None:
        """Ask the host for all its interfaces unless it was asked in this session, not longer than `max_age` ago.

        Not `wait`: it is left alone when somebody is talking to it, or it has not answered. Raises what Agents.request
        raises.
        """
        host = self._host(device)
        if not wait and (host.lock.locked() or host.silent):
            return
        async with self._turn(device, host, roster):
            agent = self._begin(device, host)
            now = self._context.clock()
            if agent is None or (host.seen_at is not None and now - host.seen_at < max_age):
                return
            if not agent.network:
                raise AgentUnsupported(f"the agent of {device} offers no network")
            host.asked_at = now
            answer = await self._ask(device, host, pb.HostNetworkConfigQueryRequest())
            host.seen, host.seen_at = observed.observe(answer, self._context.clock()), now
            host.seen_is_current = True

    async def introduce(self, member: Member) -> Observation:
        """Have the host make its interface without any peers: its answer tells whether its abbot is extended."""
        host = self._host(member.name)
        async with host.lock:
            self._begin(member.name, host)
            request = requests.host_config(member, ())
            return observed.observe(await self._tell(member.name, host, request, request), self._context.clock())

    async def bring(self, member: Member, roster: Roster, *, private_key: str = "", other_key: bool = False) -> None:
        """Tell the host what it needs to be as it shall be; nothing when it is. Raises what Agents.request raises.

        `other_key`: the private key is perhaps not what it was told, which no answer of its abbot shows.
        """
        host = self._host(member.name)
        host.private_key = private_key
        async with self._turn(member.name, host, roster):
            self._begin(member.name, host)
            host.changed.clear()
            if other_key:
                host.told, host.met = None, True
            wanted = roster.whole(member)
            request = self._difference(member, host, wanted)
            if request is None:
                host.told, host.met = _Told.of(wanted), True
            else:
                await self._tell(member.name, host, request, wanted)

    async def mention(self, devices: Iterable[str], public_keys: Collection[str], roster: Roster) -> None:
        """These peers may have changed: let the hosts know, all at once, without waiting for others who talk to them.

        A host that has not answered hears of it in its own pass: one that hangs must not hold up all who join.
        """
        await all_of([self._mention(device, public_keys, roster) for device in devices])

    async def dismiss(self, device: str) -> None:
        """Have the host remove what it has of us, if it can be reached."""
        host = self._host(device)
        async with host.lock:
            agent = self._begin(device, host)
            if agent is None or not agent.network:
                return
            try:
                await self._ask(device, host, requests.nothing())
            except (AgentUnavailable, AgentRefused, InvalidMessage) as error:
                self._log.info("a host that leaves the mesh keeps its interface", device=device, reason=str(error))
            host.told = host.seen = host.seen_at = None
            host.met = True

    async def bring_containers(
        self, device: str, request: pb.ContainerNetworkConfigEnsureRequest, roster: Roster
    ) -> None:
        """Tell the host about its containers' network, once in a session and after each change."""
        host, data = self._host(device), pack_request(request)
        async with self._turn(device, host, roster):
            self._begin(device, host)
            if host.containers == data:
                return
            try:
                await self._request(device, host, data, container=True)
            except AgentUnsupported as error:
                raise ContainersUnsupported(str(error), error.status) from error
            host.containers = data

    # -- one host ----------------------------------------------------------------------------------------------------

    def _host(self, device: str) -> _Host:
        return self._hosts.setdefault(device, _Host())

    def _begin(self, device: str, host: _Host) -> ConnectedAgent | None:
        """In a new session nothing of the old one counts."""
        agent = self.agent(device)
        if agent is not None and agent.session != host.session:
            host.session = agent.session
            host.told = host.containers = host.seen_at = host.asked_at = None
            host.silent = False
        return agent

    async def _mention(self, device: str, public_keys: Iterable[str], roster: Roster) -> None:
        host = self._host(device)
        host.changed.update(key for key in public_keys if key)
        if host.changed and not host.lock.locked() and not host.silent:
            async with self._turn(device, host, roster):
                pass

    def _difference(self, member: Member, host: _Host, wanted: Ensure) -> Ensure | None:
        seen = host.seen.ours if host.seen is not None and host.seen_is_current else None
        if host.told is not None:
            request = requests.update(member, host.told.whole(), wanted)
            return requests.repair(member, seen, wanted) if request is None and seen is not None else request
        return wanted if host.met or seen is None else requests.repair(member, seen, wanted)

    @asynccontextmanager
    async def _turn(self, device: str, host: _Host, roster: Roster) -> AsyncIterator[None]:
        async with host.lock:
            yield
            while host.changed:
                changed, host.changed = host.changed, set()
                await self._pass_on(device, host, changed, roster)

    async def _pass_on(self, device: str, host: _Host, changed: set[str], roster: Roster) -> None:
        """Tell the host about these peers; a host that must be told everything hears of them in its own pass."""
        member, agent = roster.get(device), self.agent(device)
        if member is None or host.told is None or agent is None or agent.session != host.session:
            return
        if member.gateway and member.extended:
            wanted = {key: roster.peer_at(member, key) for key in changed}
            news = [peer for key, peer in wanted.items() if peer is not None and host.told.peers.get(key) != peer]
            gone = {key for key, peer in wanted.items() if peer is None and key in host.told.peers}
            request = requests.peer_update(member, news, gone) if news or gone else None
            whole = None
        else:
            whole = roster.whole(member)
            request = requests.update(member, host.told.whole(), whole)
        if request is None:
            return
        try:
            await self._tell(device, host, request, whole)
        except EdgefarmError as error:
            self._log.info("a host could not be told about its peers yet", device=device, reason=str(error))

    async def _tell(
        self, device: str, host: _Host, request: Ensure, whole: Ensure | None
    ) -> pb.HostNetworkConfigResponse:
        """Send a request after which the host has been told `whole`; None: what it was told, with these peers."""
        told, host.told, host.seen_is_current, host.met = host.told, None, False, True
        keyed = Ensure()
        keyed.CopyFrom(request)
        keyed.expected[0].wireguard.private_key = host.private_key
        answer = await self._ask(device, host, keyed)
        if whole is not None:
            host.told = _Told.of(whole)
        elif told is not None:
            wireguard = request.expected[0].wireguard
            told.peers.update({peer.public_key: peer for peer in wireguard.peers})
            for key in wireguard.removed_peers:
                told.peers.pop(key, None)
            host.told = told
        return answer

    async def _ask(
        self, device: str, host: _Host, request: pb.HostNetworkConfigEnsureRequest | pb.HostNetworkConfigQueryRequest
    ) -> pb.HostNetworkConfigResponse:
        answer = unpack_response(await self._request(device, host, pack_request(request)))
        if not isinstance(answer, pb.HostNetworkConfigResponse):
            raise InvalidMessage("the host answered something else than its interfaces: is its abbotExec an abbot?")
        return answer

    async def _request(self, device: str, host: _Host, data: bytes, *, container: bool = False) -> bytes:
        try:
            answer = await self._context.agents().request(device, data, container=container)
        except (AgentRefused, AgentUnavailable) as error:
            host.silent = isinstance(error, AgentUnavailable)
            if host.private_key:
                # A command may repeat in its own words what it was told.
                error.args = (str(error).replace(host.private_key, "***"),)
            raise
        host.silent = False
        return answer
