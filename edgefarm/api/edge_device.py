"""The EdgeDevice kind: a host in the mesh, which is an edge host or a gateway of the cluster (docs/mesh.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeVar

from edgefarm import addresses
from edgefarm.addresses import Network
from edgefarm.api import schema
from edgefarm.api.meta import Meta
from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource

T = TypeVar("T")

LOWEST_MTU: Final = 1280
HIGHEST_MTU: Final = 65535
HIGHEST_PORT: Final = 65535
#: Routing tables and firewall marks are signed 32-bit numbers in abbot-proto.
_HIGHEST_NUMBER: Final = 2**31 - 1
PATHS: Final = ("relay", "direct", "none")
#: Peers that a status lists; all are counted.
MOST_PEERS: Final = 64
_MOST_CIDRS: Final = 64
_MOST_DNS: Final = 16


@dataclass(frozen=True)
class MeshSettings:
    """The device's WireGuard interface. None: as the configuration says; addresses then are assigned.

    `endpoint` is where others reach the host; empty: where it is found.
    """

    interface_name: str | None = None
    mtu: int | None = None
    port: int | None = None
    routing_table: int = 0
    firewall_mark: int = 0
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    extra_cidrs: tuple[Network, ...] = ()
    endpoint: str = ""


@dataclass(frozen=True)
class Dns:
    """The resolver of containers that name none themselves."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class PodSettings:
    """The network of the host's containers. None: the Node's."""

    ipv4_cidr: IPv4Network | None = None
    ipv6_cidr: IPv6Network | None = None
    dns: Dns | None = None


@dataclass(frozen=True)
class EdgeDevice:
    """One EdgeDevice object. Not `enabled`: it is out of the mesh, and only its object stays."""

    meta: Meta
    enabled: bool = True
    mesh: MeshSettings = MeshSettings()
    pod: PodSettings = PodSettings()

    @property
    def name(self) -> str:
        return self.meta.name

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> EdgeDevice:
        """Parse raw JSON; raise InvalidResource with the field's path."""
        spec = Fields(obj.get("spec", {}), "spec")
        network = spec.child("network")
        device = cls(
            meta=Meta.parse(obj),
            enabled=network.boolean("enabled", True),
            mesh=_read_mesh(network.child("mesh")),
            pod=_read_pod(spec.child("pod")),
        )
        network.closed()
        spec.closed()
        return device


def _read_mesh(fields: Fields) -> MeshSettings:
    settings = MeshSettings(
        interface_name=_given(fields, "interfaceName", addresses.check_interface_name),
        mtu=_number(fields, "mtu", LOWEST_MTU, HIGHEST_MTU),
        port=_number(fields, "port", 1, HIGHEST_PORT),
        routing_table=fields.integer("routingTable", 0, low=0, high=_HIGHEST_NUMBER),
        firewall_mark=fields.integer("firewallMark", 0, low=0, high=_HIGHEST_NUMBER),
        ipv4=_given(fields, "ipv4Addr", addresses.parse_ipv4),
        ipv6=_given(fields, "ipv6Addr", addresses.parse_ipv6),
        extra_cidrs=read_networks(fields, "extraAllowedCIDRs"),
        endpoint=_given(fields, "endpoint", addresses.check_endpoint) or "",
    )
    fields.closed()
    return settings


def _read_pod(fields: Fields) -> PodSettings:
    settings = PodSettings(
        ipv4_cidr=_given(fields, "ipv4CIDR", addresses.parse_ipv4_network),
        ipv6_cidr=_given(fields, "ipv6CIDR", addresses.parse_ipv6_network),
        dns=_read_dns(fields.child("dns")) if fields.has("dns") else None,
    )
    fields.closed()
    return settings


def _read_dns(fields: Fields) -> Dns:
    dns = Dns(
        servers=fields.texts("servers", ip_address), searches=fields.texts("searches"), options=fields.texts("options")
    )
    fields.closed()
    return dns


def read_networks(fields: Fields, name: str) -> tuple[Network, ...]:
    """A list of networks, none of which lies in another; InvalidResource names the one that is wrong."""
    texts = fields.texts(name, addresses.parse_network)
    networks = tuple(map(addresses.parse_network, texts))
    for index, network in enumerate(networks):
        twice = next((other for other in networks[:index] if addresses.overlap(network, other)), None)
        if twice is not None:
            path = f"{fields.path(name)}[{index}]"
            raise InvalidResource(path, f"{network} overlaps {twice}: name each network once")
    return networks


def _given(fields: Fields, name: str, convert: Callable[[str], T]) -> T | None:
    """A converted text; an empty one counts as not given."""
    return fields.converted(name, convert) if fields.optional(name) else None


def _number(fields: Fields, name: str, low: int, high: int) -> int | None:
    return fields.integer(name, low, low=low, high=high) if fields.has(name) else None


_IPV4: Final = "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# Looser than the real rule, which the reconciler applies; older API servers have no functions for addresses.
_IPV6: Final = "[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,7}"
_IPV4_NETWORK: Final = f"{_IPV4}/([1-9]|[12][0-9]|3[0-2])"
_IPV6_NETWORK: Final = f"{_IPV6}/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8])"
_PORT: Final = "[1-9][0-9]{0,4}"


def _pattern(description: str, pattern: str, message: str, *, longest: int) -> schema.Schema:
    """A text that is empty or matches; `message` says what to write."""
    rule = {"rule": f"self.matches('^({pattern})?$')", "message": message}
    return schema.text(description, maxLength=longest, **{"x-kubernetes-validations": [rule]})


def _texts(description: str, *, most: int, longest: int, rule: schema.Schema | None = None) -> schema.Schema:
    return {
        "type": "array",
        "description": description,
        "maxItems": most,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "string", "minLength": 1, "maxLength": longest},
    } | ({} if rule is None else {"x-kubernetes-validations": [rule]})


_MESH: Final = schema.obj(
    {
        "interfaceName": _pattern(
            "Name of the interface. Default: mesh.interfaceName of the configuration.",
            addresses.INTERFACE_NAME,
            "must be 1 to 15 letters, digits, '_', '.' or '-': write for example edgefarm0",
            longest=15,
        ),
        "mtu": schema.integer(
            "Largest packet in bytes. Default: mesh.mtu of the configuration.", minimum=LOWEST_MTU, maximum=HIGHEST_MTU
        ),
        "port": schema.integer(
            "UDP port that the interface listens at. Default: mesh.port of the configuration.",
            minimum=1,
            maximum=HIGHEST_PORT,
        ),
        "routingTable": schema.integer(
            "Routing table of the mesh's routes. 0 (default): the main table.",
            minimum=0,
            maximum=_HIGHEST_NUMBER,
            default=0,
        ),
        "firewallMark": schema.integer(
            "Mark of the encrypted packets. 0 (default): none.", minimum=0, maximum=_HIGHEST_NUMBER, default=0
        ),
        "ipv4Addr": _pattern(
            "A fixed address out of mesh.ipv4Block. Default: one is assigned.",
            _IPV4,
            "must be an IPv4 address: write for example 10.201.0.17",
            longest=15,
        ),
        "ipv6Addr": _pattern(
            "A fixed address out of mesh.ipv6Block. Default: one is assigned, where there is such a block.",
            _IPV6,
            "must be an IPv6 address: write for example fd00:201::17",
            longest=45,
        ),
        "extraAllowedCIDRs": _texts(
            "Networks behind the host that the mesh shall reach.",
            most=_MOST_CIDRS,
            longest=49,
            rule={
                "rule": f"self.all(cidr, cidr.matches('^({_IPV4_NETWORK}|{_IPV6_NETWORK})$'))",
                "message": "each must be a network: write for example 192.168.7.0/24 or fd00:7::/64",
            },
        ),
        "endpoint": _pattern(
            "Where others reach the host: address:port or name:port. Default: found. Gateways usually need it.",
            f"(({_IPV4}|[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?)|\\\\[{_IPV6}\\\\]):{_PORT}",
            "must be address:port: write for example 203.0.113.7:51820, [2001:db8::7]:51820 or gateway.example:51820",
            longest=260,
        ),
    },
    description="The WireGuard interface.",
)

SPEC: Final = schema.obj(
    {
        "network": schema.obj(
            {
                "enabled": {
                    "type": "boolean",
                    "description": "Whether the device is in the mesh. false: it leaves and keeps its object.",
                    "default": True,
                },
                "mesh": _MESH | {"default": {}},
            },
            description="How the host takes part in the mesh.",
        )
        | {"default": {}},
        "pod": schema.obj(
            {
                "ipv4CIDR": _pattern(
                    "IPv4 network of the host's containers. Default: the Node's.",
                    _IPV4_NETWORK,
                    "must be an IPv4 network: write for example 10.42.7.0/24",
                    longest=18,
                ),
                "ipv6CIDR": _pattern(
                    "IPv6 network of the host's containers. Default: the Node's.",
                    _IPV6_NETWORK,
                    "must be an IPv6 network: write for example fd00:42:7::/64",
                    longest=49,
                ),
                "dns": schema.obj(
                    {
                        "servers": _texts(
                            "Addresses of name servers.",
                            most=_MOST_DNS,
                            longest=45,
                            rule={
                                "rule": f"self.all(server, server.matches('^({_IPV4}|{_IPV6})$'))",
                                "message": "each must be an IP address: write for example 10.96.0.10",
                            },
                        ),
                        "searches": _texts("Domains in which names are looked up.", most=_MOST_DNS, longest=253),
                        "options": _texts("Options of the resolver, for example ndots:5.", most=_MOST_DNS, longest=64),
                    },
                    description="Resolver of containers that name none themselves.",
                ),
            },
            description="Network of the host's containers.",
        ),
    },
    description="How the host takes part in the mesh, and its containers with it.",
)

STATUS: Final = schema.obj(
    {
        "conditions": schema.CONDITIONS,
        "role": schema.text("edge: an edge host. gateway: it relays for them, in the cluster."),
        "node": schema.text("The Node on which the agent runs."),
        "agentConnected": {"type": "boolean", "description": "Whether the host's agent is connected."},
        "addresses": {
            "type": "array",
            "description": "Addresses of the host, as it told.",
            "x-kubernetes-list-type": "atomic",
            "items": {"type": "string"},
        },
        "publicKey": schema.text("WireGuard's public key of the mesh interface."),
        "endpoint": schema.text("Where a gateway hears the host."),
        "behindNat": {
            "type": "boolean",
            "description": "Whether that is none of the host's own addresses. Unset: not heard yet.",
        },
        "mesh": schema.obj(
            {"ipv4": schema.text("IPv4 address."), "ipv6": schema.text("IPv6 address.")},
            description="The device's own addresses in the mesh.",
        ),
        "podCIDRs": {
            "type": "array",
            "description": "Networks of containers that are routed to the host.",
            "x-kubernetes-list-type": "atomic",
            "items": {"type": "string"},
        },
        "peers": {
            "type": "array",
            "description": "What was observed of each peer; the first 64 by name.",
            "maxItems": MOST_PEERS,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": schema.obj(
                {
                    "name": schema.text("Name of the peer's EdgeDevice."),
                    "path": schema.text(
                        "relay: through a gateway. direct: through a tunnel between the two. none: not at all.",
                        enum=list(PATHS),
                    ),
                    "lastHandshake": schema.text(
                        "Last handshake of the tunnel between the two. Of one that is alive it may be an hour old.",
                        format="date-time",
                    ),
                    "endpoint": schema.text("Where the host hears the peer."),
                    "rtt": schema.text("Round trip through that tunnel, for example 12ms."),
                },
                required=["name", "path"],
            ),
        },
        "counts": schema.obj(
            {
                "relay": schema.integer("Peers that are reached through a gateway."),
                "direct": schema.integer("Peers that are reached directly."),
                "none": schema.integer("Peers that are not reached."),
            },
            description="All peers by path.",
        ),
    }
)
