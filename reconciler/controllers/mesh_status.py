"""Makes an EdgeDevice's status of what was observed, and writes it when it says something else than before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm.errors import EdgefarmError
from reconciler.context import Context
from reconciler.controllers.mesh_devices import FoundDevice
from reconciler.desired.conditions import failure_reason
from reconciler.desired.mesh.conditions import ACCEPTED, CONFIGURED, CONNECTED, READY
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation
from reconciler.desired.mesh.paths import PeerPath, path_counts, peer_entries
from reconciler.ports import EDGE_DEVICE
from reconciler.status import Condition, find_condition, set_conditions, write_status

#: More addresses of a host than these are not told.
_MOST_ADDRESSES: Final = 32
#: What a device has only while it is in the mesh.
_OF_MEMBERS: Final = ("publicKey", "endpoint", "behindNat", "mesh", "podCIDRs", "peers", "counts")


@dataclass(frozen=True)
class Identity:
    """Whose device it is, as its agent proved once."""

    role: str
    node: str


@dataclass(frozen=True)
class Facts:
    """What a pass has found out about a device in the mesh; `paths` None: its host was not heard lately."""

    member: Member
    seen: Observation | None
    paths: Sequence[PeerPath] | None


class DeviceStatus:
    """Writes statuses and tells what is worth an Event."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def write_member(
        self, found: FoundDevice, identity: Identity, facts: Facts, conditions: Sequence[Condition]
    ) -> None:
        """The status of a device that is in the mesh."""
        member, before = facts.member, found.status
        status = {name: value for name, value in before.items() if name not in _OF_MEMBERS}
        status |= _identity(identity, connected=member.connected)
        if facts.seen is not None:
            status["addresses"] = addresses_of(facts.seen)
        status["mesh"] = addresses_in_status(member)
        if member.public_key:
            status["publicKey"] = member.public_key
        if member.heard_at:
            status["endpoint"] = member.heard_at
        if member.behind_nat is not None:
            status["behindNat"] = member.behind_nat
        if member.pod_cidrs:
            status["podCIDRs"] = list(map(str, member.pod_cidrs))
        if facts.paths is not None:
            status["peers"] = peer_entries(facts.paths, before.get("peers") or ())
            status["counts"] = path_counts(facts.paths)
        await self._write(found, status, conditions)

    async def write_outside(
        self, found: FoundDevice, identity: Identity | None, conditions: Sequence[Condition], *, connected: bool
    ) -> None:
        """The status of a device that is not in the mesh."""
        status = {name: value for name, value in found.status.items() if name not in _OF_MEMBERS}
        if identity is not None:
            status |= _identity(identity, connected=connected)
        await self._write(found, status, conditions)

    async def write_conditions(self, found: FoundDevice, conditions: Sequence[Condition]) -> None:
        """Conditions alone; whatever else was observed stays."""
        await self._write(found, found.status, conditions, keep=True)

    async def _write(
        self, found: FoundDevice, status: dict[str, Any], conditions: Sequence[Condition], *, keep: bool = False
    ) -> None:
        spoken = {condition.type for condition in conditions}
        merged = set_conditions(found.obj, conditions, now=self._context.clock())
        status = {**status, "conditions": [each for each in merged if keep or each["type"] in spoken]}
        self._announce(found, conditions)
        await write_status(self._context.kube, EDGE_DEVICE, found.obj, status)

    def _announce(self, found: FoundDevice, conditions: Sequence[Condition]) -> None:
        """Refusals, and tunnels that come and go; each once."""
        for condition in conditions:
            before = find_condition(found.obj, condition.type) or {}
            if (before.get("status"), before.get("reason")) == (condition.status, condition.reason):
                continue
            if condition.status == "False" and condition.type in (ACCEPTED, CONFIGURED):
                self._context.events.warning(found.obj, condition.reason, condition.message)
            elif condition.type == CONNECTED and condition.status == "True":
                self._context.events.normal(found.obj, condition.reason, condition.message)
            elif condition.type == CONNECTED and before.get("status") == "True":
                self._context.events.warning(found.obj, condition.reason, condition.message)


def addresses_in_status(member: Member) -> dict[str, str]:
    """`status.mesh`."""
    found = {"ipv4": member.addresses.ipv4, "ipv6": member.addresses.ipv6}
    return {family: str(address) for family, address in found.items() if address is not None}


def addresses_of(seen: Observation) -> list[str]:
    """`status.addresses`, with the lengths of their networks."""
    outward = {str(each) for each in seen.addresses if not (each.ip.is_loopback or each.ip.is_link_local)}
    return sorted(outward)[:_MOST_ADDRESSES]


def mesh_disabled() -> list[Condition]:
    """There is no mesh any more."""
    return [Condition(READY, "False", "MeshDisabled", "the administrator has switched the mesh off (mesh.enabled)")]


def invalid(problem: str) -> list[Condition]:
    """The spec cannot be used."""
    message = f"{problem}; what was there before stays in place"
    return [Condition(type_, "False", "InvalidSpec", message) for type_ in (READY, ACCEPTED)]


def failed(error: EdgefarmError) -> list[Condition]:
    """A pass could not be completed."""
    return [Condition(READY, "False", failure_reason(error), f"{str(error).rstrip('. ')}; it is tried again")]


def key_needed() -> Condition:
    """The host's abbot has no key, and we must not make one."""
    message = (
        "its abbot does not tell a public key, so it cannot make its own: set mesh.keys: controller in the "
        "configuration, or run the abbot of edgefarm-network on the host"
    )
    return Condition(CONFIGURED, "False", "KeyNeeded", message)


def no_containers() -> Condition:
    """The agent contradicts itself."""
    message = "the agent says that the host runs containers, but does not offer their network: correct its file"
    return Condition(CONFIGURED, "False", "ContainersNotSupported", message)


def _identity(identity: Identity, *, connected: bool) -> dict[str, Any]:
    return {"role": identity.role, "node": identity.node, "agentConnected": connected}
