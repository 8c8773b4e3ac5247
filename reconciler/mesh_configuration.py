"""The section `mesh` of the reconciler's configuration (docs/mesh.md). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, TypeVar

from edgefarm import addresses
from edgefarm.addresses import Network
from edgefarm.api.edge_device import HIGHEST_MTU, HIGHEST_PORT, LOWEST_MTU, read_networks
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource

N = TypeVar("N", IPv4Network, IPv6Network)

_IPV4_BLOCK: Final = IPv4Network("10.201.0.0/16")
_KEYS: Final = ("device", "controller")
_MOST_DIRECT_PEERS: Final = 64
_LONGEST_OBSERVATION: Final = timedelta(hours=1)
#: Lengths that leave a block enough addresses, and keep it from being a good part of the Internet.
_IPV4_LENGTHS: Final = (8, 30)
_IPV6_LENGTHS: Final = (32, 120)


@dataclass(frozen=True)
class DirectConfiguration:
    """Whether edge hosts try tunnels between each other, and each with how many others at most."""

    enabled: bool = True
    max_peers: int = 16

    @property
    def most(self) -> int:
        """How many direct peers a host may have."""
        return self.max_peers if self.enabled else 0


@dataclass(frozen=True)
class MeshConfiguration:
    """What the mesh is made of.

    Empty `pod_cidrs` and `service_cidrs` are to be discovered. `keys` says where private keys are made. `mtu` (bytes),
    `port` and `interface_name` are defaults of the devices.
    """

    enabled: bool = False
    ipv4_block: IPv4Network = _IPV4_BLOCK
    ipv6_block: IPv6Network | None = None
    pod_cidrs: tuple[Network, ...] = ()
    service_cidrs: tuple[Network, ...] = ()
    keys: Literal["device", "controller"] = "device"
    interface_name: str = "edgefarm0"
    mtu: int = 1420
    port: int = 51820
    direct: DirectConfiguration = DirectConfiguration()
    observe_every: timedelta = timedelta(seconds=30)
    agent_urls: tuple[str, ...] = ()

    @property
    def blocks(self) -> tuple[Network, ...]:
        """The blocks that devices' addresses are of."""
        return (self.ipv4_block,) if self.ipv6_block is None else (self.ipv4_block, self.ipv6_block)


def read_mesh(fields: Fields, client_urls: tuple[str, ...], check_url: Callable[[str], None]) -> MeshConfiguration:
    """Read the section; InvalidResource names the member that is wrong. Agents use `client_urls` unless it says
    otherwise."""
    standard = MeshConfiguration()
    observe_every = fields.duration("observeEvery") or standard.observe_every
    if observe_every > _LONGEST_OBSERVATION:
        raise InvalidResource(fields.path("observeEvery"), "must be at most 1h, so that a dead tunnel is seen")
    configuration = MeshConfiguration(
        enabled=fields.boolean("enabled", standard.enabled),
        ipv4_block=_block(fields, "ipv4Block", addresses.parse_ipv4_network, _IPV4_LENGTHS) or standard.ipv4_block,
        ipv6_block=_block(fields, "ipv6Block", addresses.parse_ipv6_network, _IPV6_LENGTHS),
        pod_cidrs=read_networks(fields, "podCIDRs"),
        service_cidrs=read_networks(fields, "serviceCIDRs"),
        keys="controller" if fields.choice("keys", _KEYS, standard.keys) == "controller" else "device",
        interface_name=_interface_name(fields) or standard.interface_name,
        mtu=fields.integer("mtu", standard.mtu, low=LOWEST_MTU, high=HIGHEST_MTU),
        port=fields.integer("port", standard.port, low=1, high=HIGHEST_PORT),
        direct=_direct(fields.child("direct")),
        observe_every=observe_every,
        agent_urls=fields.texts("agentUrls", check_url) or client_urls,
    )
    fields.closed()
    _check_overlaps(fields, configuration)
    return configuration


def _direct(fields: Fields) -> DirectConfiguration:
    standard = DirectConfiguration()
    configuration = DirectConfiguration(
        enabled=fields.boolean("enabled", standard.enabled),
        max_peers=fields.integer("maxPeers", standard.max_peers, low=0, high=_MOST_DIRECT_PEERS),
    )
    fields.closed()
    return configuration


def _block(fields: Fields, name: str, parse: Callable[[str], N], lengths: tuple[int, int]) -> N | None:
    block = fields.converted(name, parse) if fields.optional(name) else None
    low, high = lengths
    if block is not None and not low <= block.prefixlen <= high:
        raise InvalidResource(fields.path(name), f"{block} cannot be the block: write a length from /{low} to /{high}")
    return block


def _check_overlaps(fields: Fields, mesh: MeshConfiguration) -> None:
    """No address may be meant for two of them: the later one in this order is named."""
    named = list(_named_networks(fields, mesh))
    for index, (path, network) in enumerate(named):
        for other_path, other in named[:index]:
            if addresses.overlap(network, other):
                raise InvalidResource(path, f"{network} overlaps {other_path} ({other}): write networks that do not")


def _named_networks(fields: Fields, mesh: MeshConfiguration) -> Iterator[tuple[str, Network]]:
    yield fields.path("ipv4Block"), mesh.ipv4_block
    if mesh.ipv6_block is not None:
        yield fields.path("ipv6Block"), mesh.ipv6_block
    for member, networks in (("podCIDRs", mesh.pod_cidrs), ("serviceCIDRs", mesh.service_cidrs)):
        for index, network in enumerate(networks):
            yield f"{fields.path(member)}[{index}]", network


def _interface_name(fields: Fields) -> str | None:
    given = fields.optional("interfaceName")
    return fields.converted("interfaceName", addresses.check_interface_name) if given else None
