"""Turns what was observed of a device into its conditions: reasons for programs, sentences for humans."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm.errors import AgentRefused, AgentUnsupported, EdgefarmError
from reconciler.desired.mesh.claims import Refusal
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation, SeenPeer
from reconciler.status import Condition

READY: Final = "Ready"
ACCEPTED: Final = "Accepted"
AGENT_CONNECTED: Final = "AgentConnected"
CONFIGURED: Final = "Configured"
CONNECTED: Final = "Connected"
#: Without these a device is not ready; the first that is not true says why.
_DECIDING: Final = (ACCEPTED, AGENT_CONNECTED, CONFIGURED, CONNECTED)
#: A host's own words may be of any length; conditions may not.
_LONGEST_WORDS: Final = 1024


@dataclass(frozen=True)
class Tunnels:
    """What the condition Connected follows from.

    `own` is what the host told lately, None where it did not; `gateways` are those of the mesh, in order, and
    `expected` are the other devices whose agents are connected. `by_gateways` is how gateways see the device.
    """

    own: Observation | None
    gateways: Sequence[Member]
    expected: int
    by_gateways: Sequence[SeenPeer] = ()


def accepted(refusals: Sequence[Refusal]) -> Condition:
    """Whether the device has the addresses and networks that it shall have."""
    if not refusals:
        return Condition(ACCEPTED, "True", "Accepted", "it has its addresses, and its networks are routed to it")
    return Condition(ACCEPTED, "False", refusals[0].reason, "; ".join(each.message for each in refusals))


def disabled() -> list[Condition]:
    """The conditions of a device that is out of the mesh because its spec says so."""
    message = "it is not in the mesh: spec.network.enabled is false"
    return [Condition(type_, "False", "Disabled", message) for type_ in (READY, ACCEPTED, CONFIGURED, CONNECTED)]


def agent_connected(*, connected: bool) -> Condition:
    """Whether the host can be told and asked anything."""
    if connected:
        return Condition(AGENT_CONNECTED, "True", "Connected", "its agent is connected")
    message = "its agent is not connected: look whether it runs, and for what it logs; the mesh goes on without it"
    return Condition(AGENT_CONNECTED, "False", "Disconnected", message)


def configured(error: EdgefarmError | None) -> Condition:
    """Whether the host did as it was told; its own words where it said no."""
    if error is None:
        return Condition(CONFIGURED, "True", "Configured", "the host did as it was told")
    if isinstance(error, AgentUnsupported):
        message = "the agent's configuration says that it offers no network: set network.enabled in it"
        return Condition(CONFIGURED, "False", "NotSupported", message)
    reason = "HostRefused" if isinstance(error, AgentRefused) else "HostSilent"
    return Condition(CONFIGURED, "False", reason, _shortened(str(error)))


def connected(member: Member, tunnels: Tunnels) -> Condition:
    """Whether there is a live tunnel: of an edge host to a gateway, of a gateway to any device.

    A gateway to which nobody should have a tunnel, because no other agent is connected, is connected as well.
    """
    return _gateway_connected(tunnels) if member.gateway else _edge_connected(member, tunnels)


def ready(conditions: Iterable[Condition]) -> Condition:
    """True only while all of the others are."""
    by_type = {condition.type: condition for condition in conditions}
    for type_ in _DECIDING:
        condition = by_type.get(type_)
        if condition is None or condition.status != "True":
            reason, message = (
                ("NotConfigured", "the host was not told anything yet")
                if condition is None
                else (condition.reason, condition.message)
            )
            return Condition(READY, "False", reason, message)
    return Condition(READY, "True", "Reconciled", by_type[CONNECTED].message)


def _edge_connected(member: Member, tunnels: Tunnels) -> Condition:
    if not tunnels.gateways:
        message = "the mesh has no gateway: run an agent with the service account network-gateway in the cluster"
        return Condition(CONNECTED, "False", "NoGateway", message)
    seen = {} if tunnels.own is None else tunnels.own.peers
    alive = [
        gateway.name for gateway in tunnels.gateways if gateway.public_key in seen and seen[gateway.public_key].alive
    ]
    if alive:
        return Condition(CONNECTED, "True", "TunnelAlive", f"the tunnel to {' and '.join(alive)} is alive")
    if any(peer.alive for peer in tunnels.by_gateways):
        return Condition(CONNECTED, "True", "TunnelAlive", "a gateway says that the tunnel to it is alive")
    gateways = " nor ".join(gateway.name for gateway in tunnels.gateways)
    where = " and ".join(gateway.endpoint for gateway in tunnels.gateways if gateway.endpoint)
    advice = (
        f"look whether UDP packets get from the host to {where}"
        if where
        else "say in spec.network.mesh.endpoint of a gateway where edge hosts reach it"
    )
    return Condition(CONNECTED, "False", "NoTunnel", f"no tunnel to {gateways} is alive: {advice}")


def _gateway_connected(tunnels: Tunnels) -> Condition:
    if tunnels.own is not None and any(peer.alive for peer in tunnels.own.peers.values()):
        alive = sum(peer.alive for peer in tunnels.own.peers.values())
        total = len(tunnels.own.peers)
        return Condition(CONNECTED, "True", "TunnelsAlive", f"{alive} of {total} tunnels are alive")
    if tunnels.expected == 0:
        return Condition(CONNECTED, "True", "NoDevices", "no other device is connected that could have a tunnel to it")
    message = "no tunnel is alive: look whether UDP packets of edge hosts get to it"
    return Condition(CONNECTED, "False", "NoTunnel", message)


def _shortened(words: str) -> str:
    return words if len(words) <= _LONGEST_WORDS else f"{words[: _LONGEST_WORDS - 1]}…"
