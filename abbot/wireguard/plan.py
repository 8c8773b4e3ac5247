"""Decides what must change on a WireGuard device so that it becomes what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from abbot.wireguard.device import Device, DeviceChange, PeerChange, PeerConfig


def plan(current: Device, wanted: Device) -> DeviceChange:
    """The change that makes `wanted` of `current`.

    A wanted port of 0 and a wanted endpoint that is empty leave what the device has.
    """
    return DeviceChange(
        private_key=wanted.private_key if wanted.private_key != current.private_key else None,
        listen_port=wanted.listen_port if wanted.listen_port not in (0, current.listen_port) else None,
        mark=wanted.mark if wanted.mark != current.mark else None,
        peers=tuple(plan_peers(current.peers, wanted.peers)),
    )


def plan_return(current: Device, earlier: Device) -> DeviceChange:
    """The change that makes a device again what it was, also where that takes away a peer's endpoint.

    A device has no other way to lose one than to lose the peer.
    """
    strange = [
        key
        for key, peer in current.peers.items()
        if peer.endpoint and key in earlier.peers and not earlier.peers[key].endpoint
    ]
    rest = {key: peer for key, peer in current.peers.items() if key not in strange}
    change = plan(replace(current, peers=rest), earlier)
    return replace(change, peers=(*(PeerChange(key, remove=True) for key in strange), *change.peers))


def plan_peers(current: Mapping[str, PeerConfig], wanted: Mapping[str, PeerConfig]) -> Iterator[PeerChange]:
    """Changes that make the peers `wanted` of `current`, in an order that never leaves a prefix without a peer.

    First who gains prefixes: they move at once. Then who must lose what nobody has taken. Then who is not wanted.
    """
    gained: set[str] = set()
    losing: list[tuple[str, PeerConfig]] = []
    for key, peer in wanted.items():
        before = current.get(key)
        if before == peer:
            continue
        had = set(before.allowed) if before else set()
        more = tuple(prefix for prefix in peer.allowed if prefix not in had)
        gained.update(more)
        if had - set(peer.allowed):
            losing.append((key, peer))
        change = _settings(key, before or PeerConfig(), peer, more)
        if before is None or change != PeerChange(key):
            yield change
    for key, peer in losing:
        kept = set(current[key].allowed) - gained
        if kept - set(peer.allowed):
            yield PeerChange(key, replace_allowed=True, allowed=peer.allowed)
    for key in current:
        if key not in wanted:
            yield PeerChange(key, remove=True)


def _settings(key: str, before: PeerConfig, after: PeerConfig, more: tuple[str, ...]) -> PeerChange:
    return PeerChange(
        key,
        preshared_key=after.preshared_key if after.preshared_key != before.preshared_key else None,
        endpoint=after.endpoint if after.endpoint and after.endpoint != before.endpoint else None,
        keepalive=after.keepalive if after.keepalive != before.keepalive else None,
        allowed=more,
    )
