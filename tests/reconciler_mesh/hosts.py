"""Edge hosts for tests: they speak abbot-proto, keep interfaces as abbot does, and reach each other over a simulated
internet; `Hosts` is the port by which the reconciler talks to their agents."""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_response, unpack_request
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported
from reconciler.ports import ConnectedAgent

_sessions = itertools.count(1)


@functools.cache
def public_key(private: str) -> str:
    """The WireGuard public key of a private one, both in base64."""
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True))
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def _own_key(seed: str) -> str:
    return base64.b64encode(hashlib.sha256(seed.encode()).digest()).decode()


@dataclass
class Host:
    """One host. `outside` is the address that others hear it from: another one than its own when it is behind NAT."""

    name: str
    role: str
    address: str
    outside: str
    internet: Internet
    extended: bool = True
    containers: bool = False
    offers_network: bool = True
    #: While set, every ensure of the host's network fails with these words.
    refusal: str = ""
    #: While set, nothing comes back from this host, although its agent is connected.
    silent: bool = False
    #: While it is not set, requests to this host wait, and then get no answer.
    patience: asyncio.Event | None = None
    #: While set, its abbot answers nothing else to whatever it is asked.
    failure: str = ""
    interfaces: dict[str, pb.HostNetworkInterface] = field(default_factory=dict)
    container_config: pb.ContainerNetworkConfigEnsureRequest | None = None
    ensures: list[pb.HostNetworkConfigEnsureRequest] = field(default_factory=list)
    container_ensures: list[pb.ContainerNetworkConfigEnsureRequest] = field(default_factory=list)
    queries: int = 0
    busy: bool = False
    generation: int = 1
    #: The host of whose disk this one's is a copy.
    copy_of: Host | None = None
    #: The interface whose public key is known, and that key.
    _keyed: pb.HostNetworkInterface | None = None
    _key: str = ""

    @property
    def device(self) -> str:
        return names.edge_device(self.role, self.name)

    @property
    def mesh(self) -> pb.DriverWireguard | None:
        """The mesh interface as it was made, if there is one."""
        ours = [each for each in self.interfaces.values() if each.provider == names.MESH_PROVIDER]
        return ours[0].wireguard if ours else None

    @property
    def mesh_addresses(self) -> list[str]:
        ours = [each for each in self.interfaces.values() if each.provider == names.MESH_PROVIDER]
        return list(ours[0].metadata.addresses) if ours else []

    @property
    def key(self) -> str:
        """The public key of the mesh interface; empty when there is none."""
        made = next(iter(self.interfaces.values()), None)
        if made is None:
            return ""
        if made is not self._keyed:
            self._keyed, self._key = made, public_key(made.wireguard.private_key or self._own_private)
        return self._key

    @property
    def _own_private(self) -> str:
        if self.copy_of is not None:
            return self.copy_of._own_private
        return _own_key(f"{self.device}/{self.generation}")

    @property
    def peers(self) -> dict[str, pb.DriverWireguard.Peer]:
        """The mesh interface's peers by public key."""
        return {} if self.mesh is None else {peer.public_key: peer for peer in self.mesh.peers}

    def peer(self, public_key: str) -> pb.DriverWireguard.Peer | None:
        """The peer with that key."""
        listed = self.mesh.peers if self.mesh is not None else ()
        return next((peer for peer in listed if peer.public_key == public_key), None)

    def reinstall(self) -> None:
        """A new disk: nothing is left, the key neither."""
        self.generation += 1
        self.interfaces.clear()
        self.container_config = None

    def forget_requests(self) -> None:
        self.ensures.clear()
        self.container_ensures.clear()
        self.queries = 0

    def answer(self, data: bytes) -> bytes:
        """What `abbot process` would print."""
        request = unpack_request(data)
        if self.failure:
            self.queries += isinstance(request, pb.HostNetworkConfigQueryRequest)
            raise AgentRefused(self.failure, 1)
        if isinstance(request, pb.HostNetworkConfigEnsureRequest):
            self.ensures.append(request)
            return pack_response(self._ensure(request))
        if isinstance(request, pb.HostNetworkConfigQueryRequest):
            self.queries += 1
            wanted = set(request.providers)
            return pack_response(self._actual(lambda each: not wanted or each.provider in wanted, unmanaged=not wanted))
        if isinstance(request, pb.ContainerNetworkConfigEnsureRequest):
            self.container_ensures.append(request)
            self.container_config = request
            return pack_response(pb.ContainerNetworkStatusListResponse())
        if isinstance(request, pb.ContainerNetworkConfigQueryRequest):
            config = self.container_config or pb.ContainerNetworkConfigEnsureRequest()
            return pack_response(
                pb.ContainerNetworkConfigResponse(ipv4_subnet=config.ipv4_subnet, ipv6_subnet=config.ipv6_subnet)
            )
        raise AgentRefused(f"abbot: {type(request).__name__} is not expected here", 1)

    # -- ensure ------------------------------------------------------------------------------------------------------

    def _ensure(self, request: pb.HostNetworkConfigEnsureRequest) -> pb.HostNetworkConfigResponse:
        if self.refusal:
            raise AgentRefused(self.refusal, 1)
        if not request.provider or request.provider == "static":
            raise AgentRefused("abbot: the request names no provider that may be managed", 1)
        if not self.extended:
            _refuse_additions(request)
        after = {name: each for name, each in self.interfaces.items() if each.provider != request.provider}
        listed: dict[str, set[str]] = {}
        for each in request.expected:
            made = self._made(each, after, request.provider)
            after[made.metadata.name] = made
            listed[made.metadata.name] = {peer.public_key for peer in each.wireguard.peers}
            partial = each.wireguard.partial
        self.interfaces = after
        answer = self._actual(lambda each: each.provider == request.provider, unmanaged=False)
        for each in answer.actual:
            if request.expected and partial:
                _keep_peers(each.wireguard, listed[each.metadata.name])
        return answer

    def _made(
        self, wanted: pb.HostNetworkInterface, others: dict[str, pb.HostNetworkInterface], provider: str
    ) -> pb.HostNetworkInterface:
        name = wanted.metadata.name
        if not 0 < len(name) <= 15 or name in others or wanted.WhichOneof("config") != "wireguard":
            raise AgentRefused(f"abbot: interface {name!r} cannot be made", 1)
        if not self.extended and not wanted.wireguard.private_key:
            raise AgentRefused(f"abbot: interface {name}: no private key", 1)
        made = pb.HostNetworkInterface()
        made.CopyFrom(wanted)
        made.provider = provider
        if wanted.wireguard.partial:
            before = self.interfaces.get(name)
            if before is None:
                raise AgentRefused(f"abbot: interface {name} is not there, so it cannot be changed in part", 1)
            peers = {peer.public_key: peer for peer in before.wireguard.peers}
            peers.update({peer.public_key: peer for peer in wanted.wireguard.peers})
            for removed in wanted.wireguard.removed_peers:
                peers.pop(removed, None)
            made.CopyFrom(before)
            del made.wireguard.peers[:]
            made.wireguard.peers.extend(peers.values())
        if len({peer.public_key for peer in made.wireguard.peers}) != len(made.wireguard.peers):
            raise AgentRefused(f"abbot: interface {name}: a peer is listed twice", 1)
        return made

    # -- answers -----------------------------------------------------------------------------------------------------

    def _actual(
        self, wanted: Callable[[pb.HostNetworkInterface], bool], *, unmanaged: bool
    ) -> pb.HostNetworkConfigResponse:
        answer = pb.HostNetworkConfigResponse(actual=self._unmanaged() if unmanaged else ())
        for each in filter(wanted, self.interfaces.values()):
            told = answer.actual.add()
            told.CopyFrom(each)
            told.wireguard.private_key = ""
            told.wireguard.partial = False
            del told.wireguard.removed_peers[:]
            if self.extended:
                told.wireguard.public_key = self.key
            del told.wireguard.peers[:]
            others = self.internet.by_key()
            told.wireguard.peers.extend(
                self._told_peer(peer, others.get(peer.public_key)) for peer in each.wireguard.peers
            )
        return answer

    def _unmanaged(self) -> Iterator[pb.HostNetworkInterface]:
        for name, address in (("lo", "127.0.0.1/8"), ("eth0", f"{self.address}/24")):
            metadata = pb.NetworkInterface(name=name, mtu=1500, addresses=[address])
            yield pb.HostNetworkInterface(metadata=metadata, unknown=pb.DriverUnknown())

    def _told_peer(self, peer: pb.DriverWireguard.Peer, other: Host | None) -> pb.DriverWireguard.Peer:
        told = pb.DriverWireguard.Peer(
            public_key=peer.public_key,
            endpoint=peer.endpoint,
            persistent_keepalive_interval=peer.persistent_keepalive_interval,
            allowed_ips=peer.allowed_ips,
        )
        alive = other is not None and self.internet.is_alive(self, other)
        if other is not None and alive:
            told.endpoint = self.internet.heard(other)
        if self.extended and alive:
            told.last_handshake_ms = int(self.internet.clock().timestamp() * 1000)
            told.alive, told.rtt_us, told.rx_bytes, told.tx_bytes = True, 12_000, 100, 100
            told.carrying = bool(peer.allowed_ips)
        return told


@dataclass
class Internet:
    """Who can hear whom."""

    clock: Callable[[], datetime]
    hosts: dict[str, Host] = field(default_factory=dict)
    #: Devices that cannot be reached at all.
    dead: set[str] = field(default_factory=set)

    def by_key(self) -> dict[str, Host]:
        """The hosts that have a mesh interface, by its public key."""
        return {host.key: host for host in self.hosts.values() if host.key}

    def heard(self, host: Host) -> str:
        """Where others hear a host."""
        port = host.mesh.listen_port if host.mesh is not None else 0
        return f"{host.outside}:{port}"

    def is_alive(self, one: Host, other: Host) -> bool:
        """Whether there is a tunnel: both list each other, and one of them knows where to begin."""
        if {one.device, other.device} & self.dead:
            return False
        there, here = one.peer(other.key), other.peer(one.key)
        if there is None or here is None:
            return False
        return self._can_begin(one, other, there) or self._can_begin(other, one, here)

    def _can_begin(self, one: Host, other: Host, peer: pb.DriverWireguard.Peer) -> bool:
        tried = {peer.endpoint, *peer.candidates}
        here = f"{other.address}:{other.mesh.listen_port if other.mesh else 0}"
        return self.heard(other) in tried or (one.outside == other.outside and here in tried)


def _keep_peers(wireguard: pb.DriverWireguard, listed: set[str]) -> None:
    kept = [peer for peer in wireguard.peers if peer.public_key in listed]
    del wireguard.peers[:]
    wireguard.peers.extend(kept)


def _refuse_additions(request: pb.HostNetworkConfigEnsureRequest) -> None:
    """Real ones would skip them; nobody may rely on that."""
    for each in request.expected:
        wireguard = each.wireguard
        fields = [field.number for field, _ in wireguard.ListFields()]
        fields += [field.number for peer in wireguard.peers for field, _ in peer.ListFields()]
        if any(number > 1000 for number in fields):
            raise AgentRefused("test: an addition was sent to an abbot that does not know additions", 1)


class Hosts:
    """The port `Agents`, with hosts whose agents connect and go."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.internet = Internet(clock)
        self.requests = 0
        self.listener: Callable[[Sequence[str]], None] = lambda _: None
        self._connected: dict[str, ConnectedAgent] = {}

    def add(self, name: str, role: str = names.ROLE_EDGE, *, outside: str = "", extended: bool = True) -> Host:
        """A host that is not connected yet, with an address of its own in a LAN of its own."""
        number = len(self.internet.hosts) + 1
        address = f"192.0.{number // 200}.{number % 200 + 10}"
        host = Host(name, role, address, outside or address, self.internet, extended)
        self.internet.hosts[host.device] = host
        return host

    def connect(self, host: Host, *, new: bool = False) -> None:
        """The host's agent registers with a new login; `new`: it was started just now."""
        self._connected[host.device] = ConnectedAgent(
            device=host.device,
            role=host.role,
            node=host.name,
            session=f"U{next(_sessions)}",
            network=host.offers_network,
            containers=host.containers,
            new=new,
            hostname=host.name,
            registered_at=self.internet.clock(),
        )
        self.listener([host.device])

    def disconnect(self, host: Host) -> None:
        """The host's agent goes silent."""
        del self._connected[host.device]
        self.listener([host.device])

    def host(self, device: str) -> Host:
        return self.internet.hosts[device]

    def forget_requests(self) -> None:
        """Count from here."""
        self.requests = 0
        for host in self.internet.hosts.values():
            host.forget_requests()

    # -- Agents ------------------------------------------------------------------------------------------------------

    def get(self, device: str) -> ConnectedAgent | None:
        return self._connected.get(device)

    def all(self) -> Sequence[ConnectedAgent]:
        return [self._connected[device] for device in sorted(self._connected)]

    async def request(
        self,
        device: str,
        data: bytes,
        *,
        timeout: float = 30,  # noqa: ASYNC109 (as in the port)
        container: bool = False,
    ) -> bytes:
        if device not in self._connected:
            raise AgentUnavailable(f"the agent of {device} is not connected")
        self.requests += 1
        host = self.host(device)
        assert not host.busy, f"two requests to {device} at the same time"
        host.busy = True
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if host.patience is not None:
                await host.patience.wait()
            if host.silent or host.patience is not None:
                raise AgentUnavailable(f"the agent of {device} did not answer in time")
            if container and not host.containers:
                raise AgentUnsupported(f"{device} runs no containers")
            return host.answer(data)
        finally:
            host.busy = False
