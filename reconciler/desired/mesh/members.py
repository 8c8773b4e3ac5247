"""What the plan knows of each device, and what is the same for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

from edgefarm import names
from edgefarm.addresses import Address, Network, endpoint_address, inside
from reconciler.desired.mesh.claims import Seniority
from reconciler.mesh_configuration import MeshConfiguration


@dataclass(frozen=True)
class MeshAddresses:
    """The addresses of a device in the mesh; None: it has none of that family."""

    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None

    @property
    def all(self) -> tuple[Address, ...]:
        """Those that it has, IPv4 first."""
        return tuple(address for address in (self.ipv4, self.ipv6) if address is not None)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The same as networks of one address."""
        return tuple(ip_network(address) for address in self.all)


NO_ADDRESSES: Final = MeshAddresses()


@dataclass(frozen=True)
class Interface:
    """The WireGuard interface of a device, with the configuration's defaults filled in; `mtu` in bytes."""

    name: str
    mtu: int
    port: int
    routing_table: int = 0
    firewall_mark: int = 0


@dataclass(frozen=True)
class Member:
    """A device in the mesh.

    `public_key` is empty while it is not known; nobody then has the device as a peer. `pod_cidrs` and `extra_cidrs` are
    those that were granted. `endpoint` is what its spec says, `heard_at` where a gateway heard it last (address:port),
    both empty where there is none. `own_addresses` are the host's, as it told, without those of its mesh interface.
    `extended`: its abbot knows all additions of abbot-proto. `connected`: its agent is.
    """

    name: str
    role: str
    seniority: Seniority
    interface: Interface
    addresses: MeshAddresses = NO_ADDRESSES
    public_key: str = ""
    pod_cidrs: tuple[Network, ...] = ()
    extra_cidrs: tuple[Network, ...] = ()
    endpoint: str = ""
    heard_at: str = ""
    own_addresses: tuple[Address, ...] = ()
    extended: bool = False
    connected: bool = False

    @property
    def gateway(self) -> bool:
        """Whether it relays for the others."""
        return self.role == names.ROLE_GATEWAY

    @property
    def prefixes(self) -> tuple[Network, ...]:
        """Everything that is reached through it, its own addresses first."""
        return (*self.addresses.networks, *self.pod_cidrs, *self.extra_cidrs)

    @property
    def behind_nat(self) -> bool | None:
        """Whether it is heard from an address that is none of its own; None while it was not heard."""
        heard = endpoint_address(self.heard_at)
        return None if heard is None else heard not in self.own_addresses


@dataclass(frozen=True)
class Backbone:
    """What is the same for all devices.

    `pods` and `services` are the networks of the cluster, configured or discovered. `gateways` are in order of
    preference: see `in_order`. `outside` are networks of edge hosts, by device, that lie in none of the cluster's, so
    that every edge host must be told of them: see `outside`.
    """

    configuration: MeshConfiguration
    pods: tuple[Network, ...] = ()
    services: tuple[Network, ...] = ()
    gateways: tuple[Member, ...] = ()
    outside: Mapping[str, tuple[Network, ...]] = field(default_factory=dict)


def in_order(gateways: Iterable[Member]) -> tuple[Member, ...]:
    """Gateways with a known key, in the order in which every edge host prefers them: the older one first.

    All hosts must prefer the same one. WireGuard drops a packet that comes through another peer than the one to which
    the sender's address belongs, so two hosts that prefer different gateways could not reach each other through either.
    """
    known = (member for member in gateways if member.gateway and member.public_key)
    return tuple(sorted(known, key=lambda member: member.seniority))


def outside(member: Member, pods: Sequence[Network]) -> tuple[Network, ...]:
    """The member's networks that every edge host must be told of, because no network of the cluster covers them."""
    if member.gateway:
        return ()
    beyond = (cidr for cidr in member.pod_cidrs if not any(inside(cidr, network) for network in pods))
    return (*beyond, *member.extra_cidrs)
