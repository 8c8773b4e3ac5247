"""Decides what the kernel shall have for an interface that was asked for: addresses, routes, rules, peers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from abbot.carrying import PROBE_PREFIX_LENGTH, carried, probe_address
from abbot.host.specs import InterfaceSpec, PeerSpec, WireguardSpec
from abbot.netlink.values import MAIN_TABLE, Address, Route, Rule, family_of
from abbot.wireguard.device import Device, PeerConfig

#: Just above the main table's own rule (32766); the suppressing one comes first, as with `wg-quick`.
_SUPPRESS_PRIORITY = 32763
_TABLE_PRIORITY = 32764
#: The kernel's priority of an IPv6 route that names none.
_IPV6_PRIORITY = 1024


def wanted_addresses(spec: InterfaceSpec) -> list[Address]:
    """Its addresses; of a tunnel also the probe address, whose prefix leads the peers' probe addresses into it."""
    addresses = [Address(text) for text in spec.addresses]
    if spec.wireguard:
        addresses.append(Address(f"{probe_address(spec.wireguard.public_key)}/{PROBE_PREFIX_LENGTH}"))
    return addresses


def wanted_routes(spec: InterfaceSpec, driver: WireguardSpec, prefixes: Iterable[str]) -> list[Route]:
    """Routes to these prefixes, except those that the kernel makes by itself for an address of the interface."""
    if not driver.routed:
        return []
    networks = {Address(text).network for text in spec.addresses} if driver.table == MAIN_TABLE else set()
    return [
        Route(prefix, driver.table, priority=_IPV6_PRIORITY if family_of(prefix) == 6 else 0)
        for prefix in prefixes
        if prefix not in networks
    ]


def all_prefixes(driver: WireguardSpec) -> dict[str, None]:
    """What all its peers list, whoever carries it now, without repetition."""
    return {prefix: None for peer in driver.peers.values() for prefix in peer.allowed}


def wanted_rules(specs: Iterable[InterfaceSpec]) -> list[Rule]:
    """Rules for the tables of their own of all these interfaces.

    As `wg-quick` has them: what is not marked looks into the table, but first into the main table for everything that
    is more specific than its default route.
    """
    rules: dict[Rule, None] = {}
    for spec in specs:
        driver = spec.wireguard
        if driver is None or not driver.routed or driver.table == MAIN_TABLE:
            continue
        for family in sorted({family_of(prefix) for prefix in all_prefixes(driver)}):
            rules[Rule(family, _SUPPRESS_PRIORITY, MAIN_TABLE, suppress_default=True)] = None
            rules[Rule(family, _TABLE_PRIORITY, driver.table, unless_mark=driver.mark)] = None
    return list(rules)


def wanted_carrying(driver: WireguardSpec, alive: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What each peer carries while these are alive."""
    return carried([peer.carrier for peer in driver.peers.values()], alive)


def changed_peers(old: WireguardSpec, new: WireguardSpec) -> list[str]:
    """Public keys of the peers that are other objects, or in one of the two only."""
    return [key for key in {**old.peers, **new.peers} if old.peers.get(key) is not new.peers.get(key)]


def moved_carrying(
    old: WireguardSpec, new: WireguardSpec, alive: Collection[str], before: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """What the changed peers of `new`, and those that share a prefix with one, carry; all others carry what they did.

    `before` is what each peer of `old` carried while the same peers were alive. The same as `wanted_carrying`, at the
    cost of the peers that are concerned.
    """
    changed = changed_peers(old, new)
    versions = [some.peers[key] for key in changed for some in (old, new) if key in some.peers]
    prefixes = {prefix for peer in versions for prefix in peer.allowed}
    concerned = [peer for peer in new.peers.values() if not prefixes.isdisjoint(peer.allowed)]
    moved = carried(
        [
            replace(peer.carrier, allowed=tuple(prefix for prefix in peer.allowed if prefix in prefixes))
            for peer in concerned
        ],
        alive,
    )
    result: dict[str, tuple[str, ...]] = {key: () for key in changed if key in new.peers}
    for peer in concerned:
        kept = (prefix for prefix in before.get(peer.public_key, ()) if prefix not in prefixes)
        carries = {*moved[peer.public_key], *kept}
        result[peer.public_key] = tuple(prefix for prefix in peer.allowed if prefix in carries)
    return result


def wanted_peer(peer: PeerSpec, carries: tuple[str, ...], endpoint: str) -> PeerConfig:
    """A peer as the device shall have it: with what it carries now, and always with its probe address."""
    return PeerConfig(peer.preshared_key, endpoint, peer.keepalive, (f"{peer.probe}/128", *carries))


def wanted_device(
    driver: WireguardSpec,
    private_key: str,
    carrying: Mapping[str, tuple[str, ...]],
    endpoint: Callable[[PeerSpec], str],
) -> Device:
    """The device with all its peers; `endpoint` says where a peer shall be reached, empty: as it is."""
    return Device(
        private_key=private_key,
        listen_port=driver.listen_port,
        mark=driver.mark,
        peers={
            peer.public_key: wanted_peer(peer, carrying[peer.public_key], endpoint(peer))
            for peer in driver.peers.values()
        },
    )
