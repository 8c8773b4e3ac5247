"""Reads what a host answers about its interfaces: its own addresses, its key, and what became of each peer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface
from typing import Final

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.addresses import Address
from reconciler.desired.mesh.overlaps import HostAddress

#: WireGuard gives up a session after this; an abbot that does not probe tells no more than its last handshake.
_SESSION: Final = timedelta(seconds=180)


@dataclass(frozen=True)
class SeenPeer:
    """A peer as a host sees it. `handshake` None: never; `alive`: its tunnel works; `rtt` in seconds, 0: not measured.

    `endpoint` is where the host hears it, or calls it while it does not.
    """

    public_key: str
    endpoint: str = ""
    handshake: datetime | None = None
    alive: bool = False
    carrying: bool = False
    rtt: float = 0.0


@dataclass(frozen=True)
class Observation:
    """What a host told about itself. `ours` are the interfaces that we manage; `public_key` is empty where its abbot
    is not extended or there is no mesh interface yet."""

    addresses: tuple[HostAddress, ...] = ()
    ours: tuple[pb.HostNetworkInterface, ...] = ()
    public_key: str = ""
    peers: Mapping[str, SeenPeer] = field(default_factory=dict)

    @property
    def extended(self) -> bool:
        """Whether its abbot knows all additions of abbot-proto."""
        return bool(self.public_key)

    @property
    def own_addresses(self) -> tuple[Address, ...]:
        """The host's addresses at which it might be heard: those of its mesh interface are no part of them."""
        return tuple(address.ip for address in self.addresses if not (address.is_loopback or address.is_link_local))


def observe(answer: pb.HostNetworkConfigResponse, now: datetime) -> Observation:
    """Read the answer to a query for all interfaces, or to an ensure, which holds ours only."""
    ours = tuple(each for each in answer.actual if each.provider == names.MESH_PROVIDER)
    others = (each for each in answer.actual if each.provider != names.MESH_PROVIDER)
    wireguard = next((each.wireguard for each in ours if each.HasField("wireguard")), None)
    return Observation(
        addresses=tuple(_addresses(others)),
        ours=ours,
        public_key="" if wireguard is None else wireguard.public_key,
        peers={} if wireguard is None else _peers(wireguard, now),
    )


def heard_at(public_key: str, gateways: Iterable[Observation]) -> str:
    """Where gateways, in order of preference, hear the device with this key; empty: nowhere yet.

    The first one with a live tunnel tells, because some routers show the device to each gateway at another port; where
    there is none, it is where the last handshake came from.
    """
    seen = [gateway.peers[public_key] for gateway in gateways if public_key in gateway.peers]
    alive = next((peer.endpoint for peer in seen if peer.alive and peer.endpoint), "")
    heard = [(peer.handshake, peer.endpoint) for peer in seen if peer.handshake is not None and peer.endpoint]
    return alive or (max(heard)[1] if heard else "")


def _addresses(interfaces: Iterable[pb.HostNetworkInterface]) -> Iterable[HostAddress]:
    """A foreign abbot may write something else than an address with its length: that says nothing to us."""
    for interface in interfaces:
        for text in interface.metadata.addresses:
            try:
                yield ip_interface(text)
            except ValueError:
                continue


def _peers(wireguard: pb.DriverWireguard, now: datetime) -> dict[str, SeenPeer]:
    return {peer.public_key: _peer(peer, now, extended=bool(wireguard.public_key)) for peer in wireguard.peers}


def _peer(peer: pb.DriverWireguard.Peer, now: datetime, *, extended: bool) -> SeenPeer:
    handshake = datetime.fromtimestamp(peer.last_handshake_ms / 1000, UTC) if peer.last_handshake_ms > 0 else None
    return SeenPeer(
        public_key=peer.public_key,
        endpoint=peer.endpoint,
        handshake=handshake,
        alive=peer.alive if extended else handshake is not None and now - handshake < _SESSION,
        carrying=peer.carrying,
        rtt=peer.rtt_us / 1e6,
    )
