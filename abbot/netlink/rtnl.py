"""Reads and changes links, addresses, routes and rules of the network namespace that this process runs in.

Every method is one question or one change; what belongs together is decided by abbot.host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from abbot.netlink.values import (
    OWN_PROTOCOL,
    Address,
    Family,
    KernelRefused,
    Link,
    LinkChange,
    PortSettings,
    Route,
    Rule,
    normal_prefix,
)

_IFF_UP: Final = 0x1
_IFF_PROMISC: Final = 0x100
_IFA_F_NODAD: Final = 0x02
_ADDR_GEN_MODE_EUI64: Final = 0
_ADDR_GEN_MODE_NONE: Final = 1
_FIB_RULE_INVERT: Final = 0x2
_UNICAST: Final = 1
_FAMILIES: Final[Mapping[Family, int]] = {4: socket.AF_INET, 6: socket.AF_INET6}
_PORT_ATTRIBUTES: Final = {
    "hairpin": "MODE",
    "guard": "GUARD",
    "fast_leave": "FAST_LEAVE",
    "root_block": "PROTECT",
    "learning": "LEARNING",
    "flood": "UNICAST_FLOOD",
    "proxy_arp": "PROXYARP",
    "proxy_arp_wifi": "PROXYARP_WIFI",
}
#: What the kernel's words do not say.
_ADVICE: Final = {
    errno.EACCES: " (is IPv6 switched off? see the sysctl net.ipv6.conf.default.disable_ipv6)",
    errno.EEXIST: " (somebody else has made the same: remove that, or ask for another)",
    errno.EPERM: " (abbot must run as root, or with CAP_NET_ADMIN)",
}
#: What the kernel says of a thing that is not there (any more).
ABSENT: Final = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})


class Rtnl:
    """A connection to the kernel's rtnetlink; KernelRefused when the kernel says no.

    Thread-safe only as far as callers take turns.
    """

    def __init__(self) -> None:
        self._ipr = IPRoute()

    def close(self) -> None:
        """Close the socket; nothing can be asked afterwards."""
        self._ipr.close()

    def __enter__(self) -> Rtnl:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- links

    def links(self) -> list[Link]:
        """All interfaces, in the order of their indexes."""
        with _asking("read the interfaces"):
            return [_link(message) for message in self._ipr.get_links()]

    def link(self, name: str) -> Link | None:
        """The interface of this name, None when there is none."""
        try:
            with _asking(f"read interface {name}"):
                return next((_link(message) for message in self._ipr.link("get", ifname=name)), None)
        except KernelRefused as error:
            if error.code in ABSENT:
                return None
            raise

    def create_link(self, name: str, kind: str) -> None:
        """Make an interface of `kind`: bridge or wireguard."""
        with _asking(f"create {kind} interface {name}"):
            self._ipr.link("add", ifname=name, kind=kind)

    def delete_link(self, link: Link) -> None:
        """Remove an interface; no error when it is gone already."""
        with _asking(f"delete interface {link.name}", but=ABSENT):
            self._ipr.link("del", index=link.index)

    def change_link(self, link: Link, change: LinkChange) -> None:
        """Set all that `change` names, in one message."""
        arguments: dict[str, Any] = {}
        for name, value in (
            ("mtu", change.mtu),
            ("address", change.hardware_address),
            ("ifalias", change.alias),
            ("txqlen", change.tx_queue_len),
            ("master", change.master),
        ):
            if value is not None:
                arguments[name] = value
        flags = {_IFF_UP: change.up, _IFF_PROMISC: change.promisc}
        if any(wanted is not None for wanted in flags.values()):
            arguments["change"] = sum(flag for flag, wanted in flags.items() if wanted is not None)
            arguments["flags"] = sum(flag for flag, wanted in flags.items() if wanted)
        if change.link_local is not None:
            mode = _ADDR_GEN_MODE_EUI64 if change.link_local else _ADDR_GEN_MODE_NONE
            arguments["IFLA_AF_SPEC"] = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", mode)]})]}
        with _asking(f"change interface {link.name}"):
            self._ipr.link("set", index=link.index, **arguments)

    def ports(self, bridge: Link) -> dict[str, PortSettings]:
        """The ports of a bridge and how it treats them, by name."""
        with _asking(f"read the ports of bridge {bridge.name}"):
            messages = [message for message in self._ipr.get_links() if message.get("IFLA_MASTER") == bridge.index]
        return {message.get("IFLA_IFNAME"): _port(message) for message in messages}

    def change_port(self, name: str, settings: PortSettings) -> None:
        """Set how a bridge treats its port `name`."""
        link = self.link(name)
        if link is None:
            raise KernelRefused(f"cannot change bridge port {name}: there is no such interface", errno.ENODEV)
        attributes = {attribute.lower(): int(getattr(settings, field)) for field, attribute in _PORT_ATTRIBUTES.items()}
        with _asking(f"change bridge port {name}"):
            self._ipr.link("set", index=link.index, kind="bridge_slave", **attributes)

    # ---- addresses

    def addresses(self, link: Link | None = None) -> dict[int, list[Address]]:
        """The addresses of one interface or of all, by index, in the kernel's order."""
        found: dict[int, list[Address]] = {}
        with _asking("read the addresses"):
            for message in self._ipr.get_addr(**({"index": link.index} if link else {})):
                if link is None or message["index"] == link.index:
                    address = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
                    found.setdefault(message["index"], []).append(Address(f"{address}/{message['prefixlen']}"))
        return found

    def add_address(self, link: Link, address: Address) -> None:
        """Add an address, without duplicate address detection: a tunnel has none, and abbot's bridges are its own."""
        host, _, length = address.text.partition("/")
        arguments = {"flags": _IFA_F_NODAD} if address.family == 6 else {}
        with _asking(f"add address {address.text} to {link.name}"):
            self._ipr.addr("add", index=link.index, address=host, prefixlen=int(length), **arguments)

    def remove_address(self, link: Link, address: Address) -> None:
        """Remove an address; no error when it is gone already."""
        host, _, length = address.text.partition("/")
        with _asking(f"remove address {address.text} from {link.name}", but=ABSENT):
            self._ipr.addr("del", index=link.index, address=host, prefixlen=int(length))

    # ---- routes and rules

    def routes(self, link: Link) -> list[Route]:
        """The unicast routes through an interface, in all tables."""
        with _asking(f"read the routes of {link.name}"):
            return [
                _route(message)
                for family in _FAMILIES.values()
                for message in self._ipr.get_routes(family=family)
                if message.get("RTA_OIF") == link.index
                and message["type"] == _UNICAST
                and not message["flags"] & _CLONED
            ]

    def add_route(self, link: Link, route: Route) -> None:
        """Add a route; KernelRefused with EEXIST when the table has one of this destination and priority."""
        with _asking(f"add the route to {route.destination} through {link.name}"):
            self._ipr.route("add", **_route_arguments(link, route))

    def remove_route(self, link: Link, route: Route) -> None:
        """Remove a route; no error when it is gone already."""
        with _asking(f"remove the route to {route.destination} through {link.name}", but=ABSENT):
            self._ipr.route("del", **_route_arguments(link, route))

    def rules(self) -> list[Rule]:
        """The rules of policy routing that abbot made."""
        with _asking("read the routing rules"):
            return [
                Rule(
                    family=family,
                    priority=message.get("FRA_PRIORITY") or 0,
                    table=message.get("FRA_TABLE"),
                    unless_mark=message.get("FRA_FWMARK") or 0 if message["flags"] & _FIB_RULE_INVERT else 0,
                    suppress_default=message.get("FRA_SUPPRESS_PREFIXLEN") == 0,
                )
                for family in _FAMILIES
                for message in self._ipr.get_rules(family=_FAMILIES[family])
                if message.get("FRA_PROTOCOL") == OWN_PROTOCOL
            ]

    def add_rule(self, rule: Rule) -> None:
        """Add a rule."""
        with _asking(f"add the routing rule for table {rule.table}"):
            self._ipr.rule("add", **_rule_arguments(rule))

    def remove_rule(self, rule: Rule) -> None:
        """Remove a rule; no error when it is gone already."""
        with _asking(f"remove the routing rule for table {rule.table}", but=ABSENT):
            self._ipr.rule("del", **_rule_arguments(rule))


#: RTM_F_CLONED: an entry of the route cache, not of a table.
_CLONED: Final = 0x200


@contextlib.contextmanager
def _asking(what: str, but: frozenset[int] = frozenset()) -> Iterator[None]:
    """Turn the kernel's refusals into KernelRefused, except the codes in `but`, which are as good as done."""
    try:
        yield
    except NetlinkError as error:
        if error.code not in but:
            raise KernelRefused(f"cannot {what}: {_words(error.code)}", error.code) from error
    except OSError as error:
        raise KernelRefused(f"cannot {what}: {error.strerror or error}", error.errno or 0) from error


def _words(code: int) -> str:
    return f"{os.strerror(code)}{_ADVICE.get(code, '')}"


def _link(message: Any) -> Link:
    info = message.get("IFLA_LINKINFO")
    inet6 = message.get(("IFLA_AF_SPEC", "AF_INET6"))
    mode = inet6.get_attr("IFLA_INET6_ADDR_GEN_MODE") if hasattr(inet6, "get_attr") else None
    return Link(
        index=message["index"],
        name=message.get("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        mtu=message.get("IFLA_MTU") or 0,
        up=bool(message["flags"] & _IFF_UP),
        hardware_address=message.get("IFLA_ADDRESS") or "",
        alias=message.get("IFLA_IFALIAS") or "",
        tx_queue_len=message.get("IFLA_TXQLEN") or 0,
        promisc=bool(message["flags"] & _IFF_PROMISC),
        link_local=mode != _ADDR_GEN_MODE_NONE,
        master=message.get("IFLA_MASTER") or 0,
    )


def _port(message: Any) -> PortSettings:
    info = message.get("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    read: Callable[[str], object] = data.get_attr if data is not None else lambda _: 0
    return PortSettings(
        **{field: bool(read(f"IFLA_BRPORT_{attribute}")) for field, attribute in _PORT_ATTRIBUTES.items()}
    )


def _route(message: Any) -> Route:
    family: Family = 4 if message["family"] == socket.AF_INET else 6
    anywhere = "0.0.0.0" if family == 4 else "::"  # noqa: S104 - a destination, no listener
    return Route(
        destination=normal_prefix(message.get("RTA_DST") or anywhere, message["dst_len"]),
        table=message.get("RTA_TABLE") or message["table"],
        protocol=message["proto"],
        priority=message.get("RTA_PRIORITY") or 0,
        scope=message["scope"],
        gateway=message.get("RTA_GATEWAY") or "",
        source=message.get("RTA_PREFSRC") or "",
    )


def _route_arguments(link: Link, route: Route) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": _FAMILIES[route.family],
        "dst": route.destination,
        "oif": link.index,
        "table": route.table,
        "proto": route.protocol,
        "scope": route.scope,
    }
    if route.priority:
        arguments["priority"] = route.priority
    if route.gateway:
        arguments["gateway"] = route.gateway
    if route.source:
        arguments["prefsrc"] = route.source
    return arguments


def _rule_arguments(rule: Rule) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "family": _FAMILIES[rule.family],
        "table": rule.table,
        "priority": rule.priority,
        "protocol": OWN_PROTOCOL,
    }
    if rule.unless_mark:
        arguments |= {"fwmark": rule.unless_mark, "fwmask": 0xFFFFFFFF, "flags": _FIB_RULE_INVERT}
    if rule.suppress_default:
        arguments["FRA_SUPPRESS_PREFIXLEN"] = 0
    return arguments
