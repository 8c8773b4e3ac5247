"""Makes the WireGuard peers of each device out of the members: whom it talks to, where, and what each one carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.addresses import Address, Network, endpoint, endpoint_address
from reconciler.desired.mesh.members import Backbone, Member

#: Shorter than the 30 s after which routers forget a UDP connection that is silent.
KEEPALIVE_SECONDS: Final = 25
#: More addresses of a host than these are not tried.
_MOST_OWN_ENDPOINTS: Final = 4

Peer: TypeAlias = pb.DriverWireguard.Peer


def peer_at_gateway(member: Member, gateway: Member) -> Peer:
    """The member as a peer of a gateway: everything that is reached through it.

    Edge hosts call gateways, so nothing has to keep the way open from here, and they have an endpoint only where their
    spec says one or where they are gateways themselves.
    """
    candidates = _reachable_at(member) if member.gateway else _given(member)
    return _peer(member, member.prefixes, candidates, extended=gateway.extended)


def relay_peers(member: Member, backbone: Backbone) -> tuple[Peer, ...]:
    """The gateways as peers of an edge host, in order of preference.

    Each lists the same prefixes, and abbot lets the first live one carry them; its own addresses and the networks
    behind it are its own at any time. An abbot that is not extended cannot do that: with it only one gateway, the
    first whose agent is connected, has the common ones.
    """
    common = tuple(_common_prefixes(member, backbone))
    carrying = next((each for each in backbone.gateways if each.connected), None) or next(iter(backbone.gateways), None)
    peers = []
    for gateway in backbone.gateways:
        own = (*gateway.addresses.networks, *gateway.extra_cidrs)
        carries = member.extended or gateway is carrying
        peer = _peer(gateway, (*own, *common) if carries else own, _reachable_at(gateway), extended=member.extended)
        peer.persistent_keepalive_interval = _keepalive(member)
        peers.append(peer)
    return tuple(peers)


def may_be_direct(member: Member) -> bool:
    """Whether others may try a direct tunnel with it: an edge host with a known key and an extended abbot."""
    return not member.gateway and member.extended and bool(member.public_key)


def direct_peer(member: Member, partner: Member) -> Peer:
    """An edge host as a peer of another one, which carries something only while its tunnel is known to be alive.

    It is tried at what its spec says, then, where both are heard from one address and so may be in one network, at its
    own addresses, and at last where a gateway hears it. Without any of them it is waited for.
    """
    heard = endpoint_address(member.heard_at)
    together = heard is not None and heard == endpoint_address(partner.heard_at)
    candidates = [*_given(partner), *(_own_endpoints(partner) if together else ())]
    candidates += [partner.heard_at] if partner.heard_at else []
    peer = _peer(partner, partner.prefixes, tuple(dict.fromkeys(candidates)), extended=True)
    peer.use = Peer.WHEN_ALIVE
    peer.persistent_keepalive_interval = _keepalive(member)
    return peer


def _common_prefixes(member: Member, backbone: Backbone) -> Iterator[Network]:
    yield from backbone.configuration.blocks
    yield from backbone.pods
    yield from backbone.services
    for device in sorted(backbone.outside):
        if device != member.name:
            yield from backbone.outside[device]


def _keepalive(member: Member) -> int:
    """Only who is behind NAT, or perhaps is, must keep the way back to it open."""
    return 0 if member.behind_nat is False else KEEPALIVE_SECONDS


def _peer(member: Member, prefixes: Iterable[Network], endpoints: tuple[str, ...], *, extended: bool) -> Peer:
    return Peer(
        public_key=member.public_key,
        endpoint=endpoints[0] if endpoints else "",
        candidates=endpoints[1:] if extended else (),
        allowed_ips=map(str, prefixes),
    )


def _given(member: Member) -> tuple[str, ...]:
    return (member.endpoint,) if member.endpoint else ()


def _reachable_at(gateway: Member) -> tuple[str, ...]:
    """Where a gateway is: what its spec says, else its own addresses."""
    return _given(gateway) or _own_endpoints(gateway)


def _own_endpoints(member: Member) -> tuple[str, ...]:
    """The member's own addresses at which others can be expected to reach it, IPv4 first."""
    usable = sorted(
        (address for address in member.own_addresses if _is_usable(address, member)), key=lambda each: each.version
    )
    return tuple(endpoint(address, member.interface.port) for address in usable[:_MOST_OWN_ENDPOINTS])


def _is_usable(address: Address, member: Member) -> bool:
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        return False
    return not any(address in network for network in member.pod_cidrs)
