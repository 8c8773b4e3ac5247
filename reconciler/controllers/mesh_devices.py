"""Reads EdgeDevices and what surrounds them into what the mesh's plan works with. No decisions beyond defaults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from typing import Any

from edgefarm import names
from edgefarm.addresses import Network
from edgefarm.api.edge_device import EdgeDevice
from edgefarm.errors import InvalidName, InvalidResource
from reconciler.desired.mesh.claims import Seniority
from reconciler.desired.mesh.members import Interface, Member, MeshAddresses
from reconciler.desired.mesh.overlaps import HostAddress
from reconciler.mesh_configuration import MeshConfiguration
from reconciler.ports import Object


@dataclass(frozen=True)
class FoundDevice:
    """An EdgeDevice: as an object, and as it was read; `device` is None when `problem` says what is wrong with it."""

    obj: Object
    device: EdgeDevice | None
    problem: str = ""

    @classmethod
    def read(cls, obj: Object) -> FoundDevice:
        """From raw JSON, whatever is in it."""
        try:
            return cls(obj, EdgeDevice.parse(obj))
        except (InvalidResource, InvalidName) as error:
            return cls(obj, None, str(error))

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.obj["metadata"]

    @property
    def status(self) -> dict[str, Any]:
        return self.obj.get("status") or {}

    @property
    def claimed(self) -> MeshAddresses:
        """The addresses in its status; what cannot be read there is passed over."""
        told = self.status.get("mesh") or {}
        try:
            return MeshAddresses(
                IPv4Address(told["ipv4"]) if "ipv4" in told else None,
                IPv6Address(told["ipv6"]) if "ipv6" in told else None,
            )
        except ValueError:
            return MeshAddresses()

    @property
    def told_addresses(self) -> tuple[HostAddress, ...]:
        """The host's addresses as its status repeats them."""
        return tuple(filter(None, map(_address, self.status.get("addresses") or ())))


def base_member(device: EdgeDevice, role: str, configuration: MeshConfiguration) -> Member:
    """What the spec alone says about a device, with the configuration's defaults."""
    mesh = device.mesh
    return Member(
        name=device.name,
        role=role,
        seniority=Seniority.of(device.meta),
        interface=Interface(
            name=mesh.interface_name or configuration.interface_name,
            mtu=mesh.mtu or configuration.mtu,
            port=mesh.port or configuration.port,
            routing_table=mesh.routing_table,
            firewall_mark=mesh.firewall_mark,
        ),
        endpoint=mesh.endpoint,
    )


def pod_cidrs(device: EdgeDevice, role: str, node: Object | None) -> tuple[Network, ...]:
    """Networks of the host's containers: what the spec says, else the Node's.

    The pods of a gateway's Node are reached through the cluster's own network, so of a gateway only the spec counts.
    """
    of_node = [] if node is None or role == names.ROLE_GATEWAY else node_cidrs(node)
    spec: list[Network] = [cidr for cidr in (device.pod.ipv4_cidr, device.pod.ipv6_cidr) if cidr is not None]
    given = {cidr.version for cidr in spec}
    return (*spec, *(cidr for cidr in of_node if cidr.version not in given))


def node_cidrs(node: Object | None) -> list[Network]:
    """The pod CIDRs of a Node, if it has any yet."""
    spec = (node or {}).get("spec") or {}
    return _networks(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")]))


def service_cidrs(objects: Iterable[Object]) -> list[Network]:
    """The networks in ServiceCIDR objects."""
    return [cidr for obj in objects for cidr in _networks((obj.get("spec") or {}).get("cidrs") or ())]


def _address(text: str) -> HostAddress | None:
    try:
        return ip_interface(text)
    except ValueError:
        return None


def _networks(texts: Iterable[str]) -> list[Network]:
    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError:
            continue
    return found
