"""Gives a device its addresses and networks, or says why not; an address counts once it stands in the status."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from edgefarm.addresses import Address
from edgefarm.api.edge_device import EdgeDevice
from reconciler.context import Context
from reconciler.controllers.mesh_devices import FoundDevice, base_member, pod_cidrs
from reconciler.controllers.mesh_roster import Roster
from reconciler.controllers.mesh_status import addresses_in_status
from reconciler.desired.mesh.allocation import Wish
from reconciler.desired.mesh.claims import Refusal, Seniority
from reconciler.desired.mesh.members import Member, MeshAddresses
from reconciler.desired.mesh.overlaps import HostAddress, Wanted, own_network_refusal
from reconciler.ports import EDGE_DEVICE, Object
from reconciler.status import merge_patch


@dataclass(frozen=True)
class Claim:
    """What a device was given; `member` None: it cannot be in the mesh, for the first of the refusals."""

    found: FoundDevice
    member: Member | None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Basis:
    """What a claim rests on besides the spec: the device's role, its Node, and its host's addresses."""

    role: str
    node: Object | None
    addresses: Sequence[HostAddress]


class Claims:
    """Addresses and networks of devices, one pass after the other."""

    def __init__(self, context: Context, wake: Callable[[Iterable[str]], None]) -> None:
        """`wake` has devices looked at that have lost an address or a network to an older one."""
        self._context = context
        self._wake = wake

    async def claim(self, found: FoundDevice, device: EdgeDevice, basis: Basis, roster: Roster) -> Claim:
        """Write the device's addresses into its status, where they are not there yet. Raises Conflict when the object
        has changed since it was read: somebody else may have given it an address."""
        member = base_member(device, basis.role, roster.configuration)
        refusals: list[Refusal] = []
        # At once, and not after something that may fail: losers are told once.
        self._wake(roster.allocations.hold(found.name, member.seniority, found.claimed))
        addresses = _assigned(device, member.seniority, roster, refusals)
        cidrs = pod_cidrs(device, basis.role, basis.node)
        granted = roster.territory.claim(Wanted(found.name, member.seniority, cidrs, device.mesh.extra_cidrs))
        self._wake(granted.losers)
        refusals += granted.refusals
        own = own_network_refusal(
            basis.addresses, roster.territory.ground, own=(*granted.pod_cidrs, *granted.extra_cidrs)
        )
        if own is not None or not addresses.all:
            first = [own] if own is not None else []
            return Claim(found, None, (*first, *refusals))
        member = replace(
            member,
            addresses=addresses,
            pod_cidrs=granted.pod_cidrs,
            extra_cidrs=granted.extra_cidrs,
            own_addresses=_outward(basis.addresses),
        )
        return Claim(await self._written(found, member), member, tuple(refusals))

    async def _written(self, found: FoundDevice, member: Member) -> FoundDevice:
        patch = merge_patch({"mesh": found.status.get("mesh") or {}}, {"mesh": addresses_in_status(member)})
        if not patch:
            return found
        metadata = found.obj["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": patch}
        written = await self._context.kube.patch(
            EDGE_DEVICE, metadata["namespace"], found.name, body, subresource="status"
        )
        return FoundDevice.read(written)


def _assigned(device: EdgeDevice, seniority: Seniority, roster: Roster, refusals: list[Refusal]) -> MeshAddresses:
    wish = Wish(device.name, seniority, MeshAddresses(device.mesh.ipv4, device.mesh.ipv6))
    assigned = roster.allocations.assign(wish)
    if isinstance(assigned, Refusal):
        refusals.append(assigned)
        return roster.allocations.held(device.name)
    return assigned


def _outward(addresses: Sequence[HostAddress]) -> tuple[Address, ...]:
    return tuple(each.ip for each in addresses if not (each.ip.is_loopback or each.ip.is_link_local))
