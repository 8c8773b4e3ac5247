"""What the kernel knows about links, addresses, routes and rules, as far as abbot reads or sets it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Final, Literal

from edgefarm.errors import NetworkFailed

MAIN_TABLE: Final = 254
LOCAL_TABLE: Final = 255
#: rtm_protocol of what abbot makes (numbers above 63 are free for everyone; see `ip route help` and rt_protos).
OWN_PROTOCOL: Final = 171
#: rtm_protocol of the routes that the kernel makes by itself for an address.
KERNEL_PROTOCOL: Final = 2

Family = Literal[4, 6]


class KernelRefused(NetworkFailed):
    """The kernel said no; `code` is its errno. The message names what was to be done and the interface."""

    def __init__(self, message: str, code: int) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class Link:
    """A network interface. `kind` is empty for hardware; `master` is the index of its bridge, 0: none.

    `link_local` says whether the kernel gives it an IPv6 link-local address by itself.
    """

    index: int
    name: str
    kind: str
    mtu: int
    up: bool
    hardware_address: str = ""
    alias: str = ""
    tx_queue_len: int = 0
    promisc: bool = False
    link_local: bool = True
    master: int = 0


@dataclass(frozen=True)
class LinkChange:
    """What to set on a link; None leaves it as it is. `master` 0 takes it out of its bridge."""

    mtu: int | None = None
    up: bool | None = None
    hardware_address: str | None = None
    alias: str | None = None
    tx_queue_len: int | None = None
    promisc: bool | None = None
    link_local: bool | None = None
    master: int | None = None

    def __bool__(self) -> bool:
        return self != LinkChange()


@dataclass(frozen=True)
class PortSettings:
    """How a bridge treats one of its ports; the names are those of DriverBridge in abbot-proto."""

    hairpin: bool = False
    guard: bool = False
    fast_leave: bool = False
    root_block: bool = False
    learning: bool = False
    flood: bool = False
    proxy_arp: bool = False
    proxy_arp_wifi: bool = False


@dataclass(frozen=True)
class Address:
    """An address with its prefix length, in the normal form of `ipaddress.ip_interface`."""

    text: str

    @property
    def family(self) -> Family:
        return family_of(self.text)

    @property
    def network(self) -> str:
        """The prefix that it lies in."""
        return str(ip_interface(self.text).network)

    @property
    def link_local(self) -> bool:
        return self.family == 6 and ip_interface(self.text).is_link_local


@dataclass(frozen=True)
class Route:
    """A unicast route through one interface; `priority` 0 is the kernel's default for the family."""

    destination: str
    table: int
    protocol: int = OWN_PROTOCOL
    priority: int = 0
    scope: int = 0
    gateway: str = ""
    source: str = ""

    @property
    def family(self) -> Family:
        return family_of(self.destination)


@dataclass(frozen=True)
class Rule:
    """A rule of policy routing that abbot made: look into `table`.

    `unless_mark` not 0: for packets that do not carry this mark. `suppress_default`: but not for its default route.
    """

    family: Family
    priority: int
    table: int
    unless_mark: int = 0
    suppress_default: bool = False


def family_of(prefix: str) -> Family:
    """4 or 6, of an address or prefix that is known to be one."""
    return 6 if ":" in prefix else 4


def normal_prefix(destination: str, length: int) -> str:
    """An address and a length as the normal form of a prefix."""
    return str(ip_network((destination, length), strict=False))
