"""Makes the kernel's and the tunnels' state what is wanted, and what it was before; each call is safe to repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Protocol

from abbot.host.specs import WIREGUARD_MTU, BridgeSpec, InterfaceSpec
from abbot.host.wanted import all_prefixes, wanted_addresses, wanted_routes
from abbot.netlink.values import (
    KERNEL_PROTOCOL,
    OWN_PROTOCOL,
    Address,
    Link,
    LinkChange,
    PortSettings,
    Route,
    Rule,
)
from abbot.wireguard.device import Device, DeviceChange
from abbot.wireguard.plan import plan, plan_return
from edgefarm.errors import NetworkFailed

_BRIDGE: Final = "bridge"
_TUNNEL_KINDS: Final = frozenset({"wireguard", "tun"})
_GONE_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.02


class Netlink(Protocol):
    """What is needed of the kernel; abbot.netlink.rtnl says what each does."""

    def links(self) -> list[Link]: ...
    def link(self, name: str) -> Link | None: ...
    def create_link(self, name: str, kind: str) -> None: ...
    def delete_link(self, link: Link) -> None: ...
    def change_link(self, link: Link, change: LinkChange) -> None: ...
    def ports(self, bridge: Link) -> dict[str, PortSettings]: ...
    def change_port(self, name: str, settings: PortSettings) -> None: ...
    def addresses(self, link: Link | None = None) -> dict[int, list[Address]]: ...
    def add_address(self, link: Link, address: Address) -> None: ...
    def remove_address(self, link: Link, address: Address) -> None: ...
    def routes(self, link: Link) -> list[Route]: ...
    def add_route(self, link: Link, route: Route) -> None: ...
    def remove_route(self, link: Link, route: Route) -> None: ...
    def rules(self) -> list[Rule]: ...
    def add_rule(self, rule: Rule) -> None: ...
    def remove_rule(self, rule: Rule) -> None: ...
    def close(self) -> None: ...


class Devices(Protocol):
    """What is needed of WireGuard; abbot.wireguard.backends says what each does."""

    def create(self, name: str, log_level: str = "") -> None: ...
    def delete(self, name: str) -> None: ...
    def get(self, name: str) -> Device: ...
    def change(self, name: str, change: DeviceChange) -> None: ...
    def in_userspace(self, name: str) -> bool: ...
    def alive(self, name: str) -> bool: ...
    def close(self) -> None: ...


class Occupied(NetworkFailed):
    """Somebody else has made an interface in the place of ours."""

    def __init__(self, link: Link) -> None:
        kind = link.kind or "hardware"
        super().__init__(f"interface {link.name} exists and is not ours: somebody made it ({kind})")


@dataclass(frozen=True)
class Snapshot:
    """All of an interface, as it was before a change; `device` of a tunnel, with its keys."""

    link: Link
    addresses: tuple[Address, ...]
    routes: tuple[Route, ...]
    ports: dict[str, PortSettings]
    device: Device | None = field(default=None, repr=False)


class Realiser:
    """Changes interfaces; every method raises NetworkFailed, and may then have done a part of it."""

    def __init__(self, netlink: Netlink, devices: Devices) -> None:
        self.netlink = netlink
        self.devices = devices

    def find(self, spec: InterfaceSpec) -> Link | None:
        """The interface of a specification that we made before; None when it must be made (again).

        Occupied when somebody else has put another one in its place.
        """
        name = spec.name
        link = self.netlink.link(name)
        if spec.wireguard is None:
            if link is not None and link.kind != _BRIDGE:
                raise Occupied(link)
            return link
        if self.devices.in_userspace(name):
            if link is not None and self.devices.alive(name):
                return link
            self.devices.delete(name)  # the process died, or lost its interface
            link = self.netlink.link(name)
        if link is not None and link.kind == "tun":
            self._wait_until_gone(name)
            return None
        if link is not None and link.kind not in _TUNNEL_KINDS:
            raise Occupied(link)
        return link

    def create(self, spec: InterfaceSpec) -> None:
        """Make an interface that is not there."""
        if spec.wireguard:
            self.devices.create(spec.name, spec.wireguard.log_level)
        else:
            self.netlink.create_link(spec.name, _BRIDGE)

    def discard(self, spec: InterfaceSpec) -> None:
        """Remove an interface; no error when it is not there."""
        if spec.wireguard:
            self.devices.delete(spec.name)
        elif (link := self.netlink.link(spec.name)) is not None:
            self.netlink.delete_link(link)

    def snapshot(self, spec: InterfaceSpec, link: Link) -> Snapshot:
        """All that `bring_back` needs."""
        return Snapshot(
            link=link,
            addresses=tuple(self.netlink.addresses(link).get(link.index, ())),
            routes=tuple(self.netlink.routes(link)),
            ports=self.netlink.ports(link) if link.kind == _BRIDGE else {},
            device=self.devices.get(spec.name) if spec.wireguard else None,
        )

    def bring_back(self, spec: InterfaceSpec, before: Snapshot) -> None:
        """Make an interface what it was, whatever has become of it."""
        link = self.find(spec)
        if link is None:
            self.create(spec)
            link = self.existing(spec.name)
        if before.device is not None and (change := plan_return(self.devices.get(spec.name), before.device)):
            self.devices.change(spec.name, change)
        self._change_link(
            link,
            LinkChange(
                mtu=before.link.mtu,
                up=before.link.up,
                hardware_address=before.link.hardware_address or None,
                alias=before.link.alias,
                tx_queue_len=before.link.tx_queue_len,
                promisc=before.link.promisc,
                link_local=before.link.link_local,
            ),
        )
        self._bring_back_ports(link, before.ports)
        self._set_addresses(link, list(before.addresses), lambda _: True)
        self._set_routes(link, list(before.routes), lambda route: route.protocol != KERNEL_PROTOCOL)

    def apply(self, spec: InterfaceSpec, link: Link, device: Callable[[Device], Device]) -> None:
        """Make an interface that exists what is asked for; `device` says what a tunnel that is so shall be."""
        if spec.wireguard:
            # Before it is up: the kernel must not make a link-local address of its own.
            self._change_link(link, LinkChange(mtu=spec.mtu or WIREGUARD_MTU, link_local=False))
            current = self.devices.get(spec.name)
            if change := plan(current, device(current)):
                self.devices.change(spec.name, change)
            self._change_link(self.existing(spec.name), LinkChange(up=True))
        elif isinstance(spec.driver, BridgeSpec):
            self._change_link(link, _bridge_change(spec, spec.driver))
            if spec.driver.ports is not None:
                self._set_ports(link, spec.driver.ports)
        self._set_addresses(link, wanted_addresses(spec), lambda one: bool(spec.wireguard) or not one.link_local)
        if spec.wireguard:
            routes = wanted_routes(spec, spec.wireguard, all_prefixes(spec.wireguard))
            self._set_routes(link, routes, lambda route: route.protocol == OWN_PROTOCOL)

    def set_rules(self, wanted: Sequence[Rule]) -> None:
        """Make abbot's rules of policy routing exactly these."""
        current = self.netlink.rules()
        for rule in wanted:
            if rule not in current:
                self.netlink.add_rule(rule)
        for rule in current:
            if rule not in wanted:
                self.netlink.remove_rule(rule)

    def _change_link(self, link: Link, wanted: LinkChange) -> None:
        """Set what differs."""
        differing = {
            name: value for name, value in vars(wanted).items() if value is not None and value != getattr(link, name)
        }
        if differing:
            self.netlink.change_link(link, LinkChange(**differing))

    def _set_ports(self, bridge: Link, wanted: PortSettings) -> None:
        for name, settings in self.netlink.ports(bridge).items():
            if settings != wanted:
                self.netlink.change_port(name, wanted)

    def _bring_back_ports(self, bridge: Link, before: dict[str, PortSettings]) -> None:
        for name, settings in before.items():
            port = self.netlink.link(name)
            if port is None:
                continue
            if port.master != bridge.index:
                self.netlink.change_link(port, LinkChange(master=bridge.index))
            if self.netlink.ports(bridge).get(name) != settings:
                self.netlink.change_port(name, settings)

    def _set_addresses(self, link: Link, wanted: list[Address], ours: Callable[[Address], bool]) -> None:
        """Make the addresses `wanted`; others are removed where they are `ours` to remove.

        IPv4 addresses have an order: the first of a network is the one that packets come from, and takes the others
        of it with it when it is removed. So what is not in order is made anew.
        """
        current = self.netlink.addresses(link).get(link.index, [])
        now, then = ([address for address in some if address.family == 4] for some in (current, wanted))
        in_order = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(now, then, strict=False))))
        unwanted = [*now[in_order:], *(one for one in current if one.family == 6 and one not in wanted and ours(one))]
        for address in unwanted:
            self.netlink.remove_address(link, address)
        left = self.netlink.addresses(link).get(link.index, []) if unwanted else current
        for address in wanted:
            if address not in left:
                self.netlink.add_address(link, address)

    def _set_routes(self, link: Link, wanted: list[Route], ours: Callable[[Route], bool]) -> None:
        """Make the routes through the interface `wanted`; others are removed where they are `ours` to remove."""
        current = dict.fromkeys(self.netlink.routes(link))  # there may be thousands
        stay = set(wanted)
        for route in current:
            if route not in stay and ours(route):
                self.netlink.remove_route(link, route)
        missing = [route for route in wanted if route not in current]
        # A gateway can only be named when there is a route to it.
        for route in sorted(missing, key=lambda route: bool(route.gateway)):
            if route.protocol != KERNEL_PROTOCOL:  # the kernel makes its own, with the addresses
                self.netlink.add_route(link, route)

    def existing(self, name: str) -> Link:
        """The interface of this name; NetworkFailed when there is none."""
        link = self.netlink.link(name)
        if link is None:
            raise NetworkFailed(f"interface {name} is gone: somebody removed it")
        return link

    def _wait_until_gone(self, name: str) -> None:
        """An interface of a process of ours that was killed a moment ago is about to go with it."""
        deadline = time.monotonic() + _GONE_SECONDS
        while (link := self.netlink.link(name)) is not None:
            if time.monotonic() > deadline:
                raise Occupied(link)
            time.sleep(_POLL_SECONDS)


def _bridge_change(spec: InterfaceSpec, driver: BridgeSpec) -> LinkChange:
    return LinkChange(
        mtu=spec.mtu or None,
        up=True,
        hardware_address=spec.hardware_address or None,
        alias=driver.alias,
        tx_queue_len=driver.tx_queue_len or None,
        promisc=driver.promisc,
    )
