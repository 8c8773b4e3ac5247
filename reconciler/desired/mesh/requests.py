"""Makes the requests that hosts are sent: whole ones, and partial ones that hold what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.addresses import endpoint_address
from edgefarm.api.edge_device import Dns
from reconciler.desired.mesh.members import Backbone, Member
from reconciler.desired.mesh.observed import read_address
from reconciler.desired.mesh.peers import Peer, direct_peer, may_be_direct, relay_peers

Ensure: TypeAlias = pb.HostNetworkConfigEnsureRequest


def host_config(member: Member, peers: Iterable[Peer], *, private_key: str = "") -> Ensure:
    """The whole configuration of a host: its mesh interface with all of its peers.

    `private_key` is for an abbot that cannot make its own. Without peers the request holds nothing that an abbot would
    not know, whichever it is: that makes a first one, whose answer tells.
    """
    interface = _interface(member)
    interface.wireguard.private_key = private_key
    interface.wireguard.peers.extend(peers)
    return Ensure(provider=names.MESH_PROVIDER, expected=[interface])


def edge_peers(member: Member, backbone: Backbone, partners: Iterable[Member]) -> tuple[Peer, ...]:
    """All peers of an edge host: gateways, and direct ones where both abbots are extended.

    For a prefix that both list abbot takes the first live one, so a direct peer that others must be told of comes
    before the gateways; all others come behind them, where a partial request can add them.
    """
    direct = {
        partner.name: direct_peer(member, partner)
        for partner in sorted(partners, key=lambda each: each.name)
        if may_be_direct(member) and may_be_direct(partner)
    }
    first = [peer for name, peer in direct.items() if name in backbone.outside]
    last = [peer for name, peer in direct.items() if name not in backbone.outside]
    return (*first, *relay_peers(member, backbone), *last)


def nothing() -> Ensure:
    """What a host is told that leaves the mesh: it has no interfaces of ours."""
    return Ensure(provider=names.MESH_PROVIDER)


def peer_update(member: Member, changed: Sequence[Peer], removed: Collection[str]) -> Ensure:
    """A partial request to an extended abbot: peers to add or replace, and public keys of those to remove.

    Its size does not depend on how many others there are.
    """
    interface = _interface(member)
    interface.wireguard.partial = True
    interface.wireguard.peers.extend(changed)
    interface.wireguard.removed_peers.extend(sorted(removed))
    return Ensure(provider=names.MESH_PROVIDER, expected=[interface])


def update(member: Member, sent: Ensure, wanted: Ensure) -> Ensure | None:
    """What turns a host that was sent the whole request `sent` into `wanted`; None where they are the same.

    It is partial where the abbot is extended and nothing but peers differ; else it is `wanted` itself. Order counts
    only between peers that list the same prefix.
    """
    before, after = _wireguard(sent), _wireguard(wanted)
    if before is None or after is None or not member.extended or not _same_interface(sent, wanted):
        return None if sent == wanted else wanted
    changed, removed = _difference(before.peers, after.peers)
    if _precedence(_applied(before.peers, changed, removed)) != _precedence(after.peers):
        return wanted
    return peer_update(member, changed, removed) if changed or removed else None


def repair(member: Member, actual: Sequence[pb.HostNetworkInterface], wanted: Ensure) -> Ensure | None:
    """What turns a host that answered with `actual` (the interfaces of our provider) into `wanted`; None: nothing.

    For a reconciler that has not sent this host anything yet and must not disturb tunnels that are as they shall be.
    What answers do not hold, such as candidates, is not compared; endpoints only of extended abbots' dead tunnels,
    because live ones follow their peer.
    """
    expected = _wireguard(wanted)
    if len(actual) != 1 or expected is None or not _is_as_wanted(actual[0], wanted.expected[0]):
        return wanted if actual or wanted.expected else None
    there = {peer.public_key: peer for peer in actual[0].wireguard.peers}
    keys = {peer.public_key for peer in expected.peers}
    changed = [
        peer
        for peer in expected.peers
        if peer.public_key not in there or not _serves(there[peer.public_key], peer, extended=member.extended)
    ]
    removed = there.keys() - keys
    # Answers hold peers in the order of what was asked: a gateway that was made anew comes later than it did.
    left = _applied(actual[0].wireguard.peers, changed, removed)
    if member.extended and _precedence(left) != _precedence(expected.peers):
        return wanted
    if not changed and not removed:
        return None
    return peer_update(member, changed, removed) if member.extended else wanted


def container_config(member: Member, dns: Dns | None) -> pb.ContainerNetworkConfigEnsureRequest:
    """What the host's containers get addresses of: its first pod CIDR of each family."""
    by_version = {cidr.version: str(cidr) for cidr in reversed(member.pod_cidrs)}
    request = pb.ContainerNetworkConfigEnsureRequest(
        ipv4_subnet=by_version.get(4, ""), ipv6_subnet=by_version.get(6, "")
    )
    if dns is not None and member.extended:
        request.dns.servers.extend(dns.servers)
        request.dns.searches.extend(dns.searches)
        request.dns.options.extend(dns.options)
    return request


def _interface(member: Member) -> pb.HostNetworkInterface:
    settings = member.interface
    return pb.HostNetworkInterface(
        provider=names.MESH_PROVIDER,
        metadata=pb.NetworkInterface(
            name=settings.name, mtu=settings.mtu, addresses=[str(network) for network in member.addresses.networks]
        ),
        wireguard=pb.DriverWireguard(
            listen_port=settings.port,
            routing=pb.DriverWireguard.Routing(
                enabled=True, table=settings.routing_table, firewall_mark=settings.firewall_mark
            ),
        ),
    )


def _wireguard(request: Ensure) -> pb.DriverWireguard | None:
    return request.expected[0].wireguard if len(request.expected) == 1 else None


def _same_interface(one: Ensure, other: Ensure) -> bool:
    """Whether nothing but peers differs."""
    bare = []
    for request in (one, other):
        copy = Ensure()
        copy.CopyFrom(request)
        copy.expected[0].wireguard.ClearField("peers")
        bare.append(copy)
    return bare[0] == bare[1]


def _difference(before: Iterable[Peer], after: Iterable[Peer]) -> tuple[list[Peer], set[str]]:
    """Peers to add or replace, and keys of those to remove."""
    there = {peer.public_key: peer for peer in before}
    wanted = {peer.public_key: peer for peer in after}
    return [peer for key, peer in wanted.items() if there.get(key) != peer], there.keys() - wanted.keys()


def _applied(before: Iterable[Peer], changed: Iterable[Peer], removed: Collection[str]) -> list[Peer]:
    """The peers in the order that a partial request leaves them in: replaced in their place, new ones at the end."""
    peers = {peer.public_key: peer for peer in before if peer.public_key not in removed}
    peers.update((peer.public_key, peer) for peer in changed)
    return list(peers.values())


def _precedence(peers: Iterable[Peer]) -> Mapping[str, Sequence[str]]:
    """Who lists a prefix, in order, for every prefix that more than one peer lists."""
    listed: dict[str, list[str]] = {}
    for peer in peers:
        for prefix in peer.allowed_ips:
            listed.setdefault(prefix, []).append(peer.public_key)
    return {prefix: keys for prefix, keys in listed.items() if len(keys) > 1}


def _is_as_wanted(actual: pb.HostNetworkInterface, wanted: pb.HostNetworkInterface) -> bool:
    """Whether the interface itself is; what it has on top, its link-local addresses, is abbot's own."""
    there, expected = actual.metadata, wanted.metadata
    told = {text: read_address(text) for text in there.addresses}
    addresses = {text for text, address in told.items() if address is None or not address.is_link_local}
    return (
        actual.HasField("wireguard")
        and (there.name, there.mtu) == (expected.name, expected.mtu)
        and addresses == set(expected.addresses)
        and actual.wireguard.listen_port == wanted.wireguard.listen_port
        # Ours repeats how it routes; that other abbots do is not written anywhere.
        and (not actual.wireguard.HasField("routing") or actual.wireguard.routing == wanted.wireguard.routing)
    )


def _serves(actual: Peer, wanted: Peer, *, extended: bool) -> bool:
    if set(actual.allowed_ips) != set(wanted.allowed_ips):
        return False
    if actual.persistent_keepalive_interval != wanted.persistent_keepalive_interval:
        return False
    return actual.alive or not extended or _is_tried(actual.endpoint, [wanted.endpoint, *wanted.candidates])


def _is_tried(endpoint: str, wanted: Iterable[str]) -> bool:
    """Whether the endpoint of a dead tunnel is one of those wanted; a name among them may stand for any."""
    known = [text for text in wanted if text]
    return not known or endpoint in known or any(endpoint_address(text) is None for text in known)
