"""Members, networks and backbones as the tests of the mesh's plan need them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from edgefarm import names
from edgefarm.addresses import Network
from reconciler.desired.mesh.claims import Seniority
from reconciler.desired.mesh.members import Backbone, Interface, Member, MeshAddresses, in_order, outside
from reconciler.mesh_configuration import MeshConfiguration

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CONFIGURATION = MeshConfiguration(
    enabled=True, ipv4_block=IPv4Network("10.201.0.0/16"), ipv6_block=IPv6Network("fd00:201::/64")
)
INTERFACE = Interface("edgefarm0", 1420, 51820)
PODS = (ip_network("10.42.0.0/16"),)
SERVICES = (ip_network("10.43.0.0/16"),)


def key(name: str) -> str:
    """A public key that follows from the name."""
    return base64.b64encode(sha256(name.encode()).digest()).decode()


def age(number: int) -> Seniority:
    """The smaller the number, the older."""
    return Seniority(EPOCH + timedelta(seconds=number), f"uid-{number}")


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ip_network, texts))


def edge(number: int, **changes: Any) -> Member:
    """An edge host with an extended abbot, an address of its own and a pod CIDR of the cluster's."""
    name = f"edge-{number}"
    facts: dict[str, Any] = {
        "addresses": MeshAddresses(IPv4Address("10.201.0.0") + 2 + number),
        "public_key": key(name),
        "pod_cidrs": networks(f"10.42.{number % 256}.0/24") if number < 256 else (),
        "interface": INTERFACE,
        "extended": True,
        "connected": True,
    }
    return Member(name, names.ROLE_EDGE, age(number), **facts | changes)


def gateway(number: int, **changes: Any) -> Member:
    """A gateway that others reach at an endpoint of its own."""
    name = f"gateway.cloud-{number}"
    facts: dict[str, Any] = {
        "addresses": MeshAddresses(IPv4Address("10.201.255.0") + number),
        "public_key": key(name),
        "endpoint": f"203.0.113.{number}:51820",
        "interface": INTERFACE,
        "extended": True,
        "connected": True,
    }
    return Member(name, names.ROLE_GATEWAY, age(number), **facts | changes)


def backbone(*members: Member) -> Backbone:
    """That of these members."""
    beyond = {member.name: outside(member, PODS) for member in members}
    return Backbone(
        CONFIGURATION, PODS, SERVICES, in_order(members), {name: cidrs for name, cidrs in beyond.items() if cidrs}
    )


def hosts(*texts: str) -> tuple[Any, ...]:
    return tuple(map(ip_address, texts))


def texts(things: Iterable[Any]) -> list[str]:
    return list(map(str, things))
