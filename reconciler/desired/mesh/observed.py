"""Reads what a host answers about its interfaces: its own addresses, its key, and what became of each peer."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface
from typing import Final

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.addresses import Address, endpoint_address
from reconciler.desired.mesh.overlaps import HostAddress

#: WireGuard gives up a session after this; an abbot that does not probe tells no more than its last handshake.
_SESSION: Final = timedelta(seconds=180)
_KEY_BYTES: Final = 32


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
        public_key="" if wireguard is None else _key(wireguard.public_key),
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


def read_address(text: str) -> HostAddress | None:
    """An address with its length; None where a host writes something else, which then says nothing to us."""
    try:
        return ip_interface(text)
    except ValueError:
        return None


def _addresses(interfaces: Iterable[pb.HostNetworkInterface]) -> Iterable[HostAddress]:
    for interface in interfaces:
        yield from filter(None, map(read_address, interface.metadata.addresses))


def _key(text: str) -> str:
    """A public key as others can be told it; empty where it is none: their hosts would refuse all that stands by it."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return ""
    return text if len(raw) == _KEY_BYTES and base64.b64encode(raw).decode() == text else ""


def _peers(wireguard: pb.DriverWireguard, now: datetime) -> dict[str, SeenPeer]:
    return {peer.public_key: _peer(peer, now, extended=bool(wireguard.public_key)) for peer in wireguard.peers}


def _peer(peer: pb.DriverWireguard.Peer, now: datetime, *, extended: bool) -> SeenPeer:
    # A host's clock may be wrong in any way; nothing has happened after now.
    milliseconds = min(peer.last_handshake_ms, int(now.timestamp() * 1000))
    handshake = datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds > 0 else None
    return SeenPeer(
        public_key=peer.public_key,
        endpoint=peer.endpoint if endpoint_address(peer.endpoint) is not None else "",
        handshake=handshake,
        alive=peer.alive if extended else handshake is not None and now - handshake < _SESSION,
        carrying=peer.carrying,
        rtt=max(0, peer.rtt_us) / 1e6,
    )
