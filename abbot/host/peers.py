"""Changes the peers of tunnels that exist: what they carry, where they are reached, and who they are.

Nothing here reads a whole device: the cost of a change does not grow with the peers that it leaves alone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from abbot.carrying import probe_address
from abbot.host.managed import Managed, PeerState, Tunnel
from abbot.host.realise import Realiser
from abbot.host.specs import InterfaceSpec, PeerSpec, WireguardSpec
from abbot.host.transactions import Transaction
from abbot.host.wanted import (
    all_prefixes,
    changed_peers,
    moved_carrying,
    wanted_carrying,
    wanted_device,
    wanted_peer,
    wanted_routes,
)
from abbot.netlink.values import KernelRefused, Link, Route
from abbot.wireguard.device import Device, DeviceChange, PeerChange, PeerConfig, PeerTraffic
from abbot.wireguard.endpoints import Resolver, normal_endpoint
from abbot.wireguard.plan import plan_peers, plan_return
from edgefarm.errors import NetworkFailed


class Peers:
    """The peers of all tunnels; NetworkFailed when a device does not take a change."""

    def __init__(self, realiser: Realiser, resolver: Resolver) -> None:
        self._realiser = realiser
        self._resolver = resolver

    def device(
        self, driver: WireguardSpec, key: str, carrying: Mapping[str, tuple[str, ...]], before: WireguardSpec | None
    ) -> Callable[[Device], Device]:
        """What a device that is so shall be. A peer's endpoint changes only when it was asked to (against `before`),
        or has none: else the peer, or who looks for it, has found a better one."""
        old = before.peers if before else {}

        def wanted(current: Device) -> Device:
            def endpoint(peer: PeerSpec) -> str:
                config, asked = current.peers.get(peer.public_key), old.get(peer.public_key)
                if config and config.endpoint and asked and asked.endpoint == peer.endpoint:
                    return config.endpoint
                return self._resolver.resolve(peer.endpoint)

            return wanted_device(driver, key, carrying, endpoint)

        return wanted

    def change(self, steps: Transaction, managed: Managed, spec: InterfaceSpec) -> Mapping[str, tuple[str, ...]]:
        """Make the peers of a tunnel those of `spec`, which is its specification otherwise; what they carry then."""
        old, new = managed.tunnel, spec.driver
        assert isinstance(new, WireguardSpec)
        link = self._realiser.existing(spec.name)
        moved = moved_carrying(old, new, managed.alive, managed.carrying)
        carrying = {key: carries for key, carries in managed.carrying.items() if key in new.peers} | moved
        touched = dict.fromkeys([*moved, *changed_peers(old, new)])
        before = {key: self._as_configured(managed, key) for key in touched if key in old.peers}
        after = {
            key: wanted_peer(new.peers[key], carrying[key], self._changed_endpoint(old, new.peers[key]))
            for key in touched
            if key in new.peers
        }
        inverse = plan_return(Device(peers=_kept_endpoints(before, after)), Device(peers=before))
        steps.inverse(lambda: self._configure(spec.name, inverse.peers))
        self._configure(spec.name, tuple(plan_peers(before, after)))
        if new.routed:
            self._change_routes(steps, link, spec, old, new)
        return carrying

    def set_alive(self, managed: Managed, alive: frozenset[str], rtts: Mapping[str, float]) -> None:
        """Let live peers carry what they list."""
        carrying = wanted_carrying(managed.tunnel, alive)
        touched = [key for key, prefixes in carrying.items() if managed.carrying.get(key) != prefixes]
        before = {key: self._as_configured(managed, key) for key in touched}
        after = {key: replace(before[key], allowed=(before[key].allowed[0], *carrying[key])) for key in touched}
        self._configure(managed.spec.name, tuple(plan_peers(before, after)))
        managed.alive, managed.rtts, managed.carrying = alive, rtts, carrying

    def set_endpoint(self, managed: Managed, public_key: str, endpoint: str) -> None:
        """Try to reach a peer here; nothing happens when the name's address, or the peer, is not known."""
        address = self._resolver.known(normal_endpoint(endpoint))
        if address and public_key in managed.tunnel.peers:
            self._configure(managed.spec.name, (PeerChange(public_key, endpoint=address),))

    def look(self, managed: Managed) -> None:
        """See a tunnel as it is."""
        managed.seen = self._realiser.devices.get(managed.spec.name)

    def tunnel(self, managed: Managed) -> Tunnel:
        """The tunnel as it is; where it does not answer, as if nothing had ever happened with its peers."""
        try:
            self.look(managed)
        except NetworkFailed:
            managed.seen = Device()
        driver = managed.tunnel
        return Tunnel(
            interface=managed.spec.name,
            probe_address=probe_address(driver.public_key),
            peers=tuple(_peer_state(peer, managed.seen) for peer in driver.peers.values()),
        )

    def _configure(self, name: str, peers: tuple[PeerChange, ...]) -> None:
        if peers:
            self._realiser.devices.change(name, DeviceChange(peers=peers))

    def _as_configured(self, managed: Managed, key: str) -> PeerConfig:
        seen = managed.seen.peers.get(key)
        return wanted_peer(managed.tunnel.peers[key], managed.carrying.get(key, ()), seen.endpoint if seen else "")

    def _changed_endpoint(self, old: WireguardSpec, peer: PeerSpec) -> str:
        """Empty: leave it as it is."""
        asked = old.peers.get(peer.public_key)
        return "" if asked and asked.endpoint == peer.endpoint else self._resolver.resolve(peer.endpoint)

    def _change_routes(
        self, steps: Transaction, link: Link, spec: InterfaceSpec, old: WireguardSpec, new: WireguardSpec
    ) -> None:
        netlink = self._realiser.netlink
        before, after = all_prefixes(old), all_prefixes(new)
        for route in wanted_routes(spec, new, [prefix for prefix in before if prefix not in after]):
            steps.inverse(partial(self._add_again, link, route))
            netlink.remove_route(link, route)
        for route in wanted_routes(spec, new, [prefix for prefix in after if prefix not in before]):
            steps.inverse(partial(netlink.remove_route, link, route))
            netlink.add_route(link, route)

    def _add_again(self, link: Link, route: Route) -> None:
        try:
            self._realiser.netlink.add_route(link, route)
        except KernelRefused as error:
            if error.code != errno.EEXIST:  # it was not removed
                raise


def _kept_endpoints(before: Mapping[str, PeerConfig], after: Mapping[str, PeerConfig]) -> dict[str, PeerConfig]:
    """`after`, where an endpoint that is left as it is stands as it was."""
    return {
        key: peer if peer.endpoint or key not in before else replace(peer, endpoint=before[key].endpoint)
        for key, peer in after.items()
    }


def _peer_state(peer: PeerSpec, device: Device) -> PeerState:
    config = device.peers.get(peer.public_key)
    traffic = device.traffic.get(peer.public_key, PeerTraffic())
    return PeerState(
        public_key=peer.public_key,
        probe_address=peer.probe,
        endpoint=peer.endpoint,
        candidates=peer.candidates,
        current_endpoint=config.endpoint if config else "",
        last_handshake=traffic.last_handshake,
        rx=traffic.rx,
        tx=traffic.tx,
    )
