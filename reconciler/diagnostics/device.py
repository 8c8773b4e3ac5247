"""Decides what is wrong with a device of the mesh, from its conditions and its peers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgefarm.findings import Code, Finding, fine, unknown, warning, wrong
from reconciler.desired.mesh.conditions import ACCEPTED, CONFIGURED, CONNECTED
from reconciler.diagnostics.conditions import limited
from reconciler.ports import Object
from reconciler.status import find_condition


@dataclass(frozen=True)
class DeviceFacts:
    """`obj` None: there is no such EdgeDevice; `connected`: its agent is, now."""

    name: str
    obj: Object | None
    mesh_enabled: bool
    connected: bool


def check_device(facts: DeviceFacts) -> list[Finding]:
    """From the object to its tunnels."""
    subject = f"EdgeDevice {facts.name}"
    if facts.obj is None:
        advice = "it comes with the first login of the node's agent: see that the agent runs there, and its log"
        return [wrong(Code.DEVICE_ABSENT, subject, "there is no such EdgeDevice", advice)]
    found = [fine(Code.DEVICE_ABSENT, subject, "it exists")]
    if not facts.mesh_enabled:
        message = "the mesh is switched off, so its host is not told anything"
        return [*found, wrong(Code.DEVICE_NOT_READY, subject, message, "set mesh.enabled in the configuration")]
    if not facts.connected:
        message = "its agent is not connected; the host's tunnels work on as they were"
        advice = "see that the agent runs on the node and that it reaches Vault and mesh.agentUrls; its log says more"
        found.append(wrong(Code.AGENT_NOT_CONNECTED, subject, message, advice))
        return [*found, unknown(Code.TUNNEL_DEAD, subject, "its tunnels are not known while its agent is away")]
    found.append(fine(Code.AGENT_NOT_CONNECTED, subject, "its agent is connected"))
    return [*found, *_told(subject, facts.obj), *_tunnels(subject, facts.obj)]


def _told(subject: str, obj: Object) -> list[Finding]:
    """Whether it is what was asked for, and whether its host did as it was told."""
    for type_ in (ACCEPTED, CONFIGURED):
        condition = find_condition(obj, type_) or {}
        if condition.get("status") != "True":
            message = f"{condition.get('reason', 'Unknown')}: {condition.get('message', f'{type_} is not known yet')}"
            advice = "docs/mesh.md says for each reason what to do"
            return [wrong(Code.DEVICE_NOT_READY, subject, message, advice)]
    return [fine(Code.DEVICE_NOT_READY, subject, "its host did as it was told")]


def _tunnels(subject: str, obj: Object) -> list[Finding]:
    condition = find_condition(obj, CONNECTED) or {}
    if condition.get("status") != "True":
        message = str(condition.get("message") or "nothing is known of its tunnels yet")
        advice = "see that UDP gets from the host to the gateway's endpoint, and that a gateway's agent is connected"
        return [wrong(Code.TUNNEL_DEAD, subject, message, advice)]
    lost = [
        warning(
            Code.PEER_STALE,
            f"{subject} to {peer['name']}",
            f"the peer is not reached (last handshake: {peer.get('lastHandshake', 'never')})",
            "see whether the peer's host runs and has an uplink: `edgefarm doctor device` with its name",
        )
        for peer in (obj.get("status") or {}).get("peers") or ()
        if peer.get("path") == "none"
    ]
    return [fine(Code.TUNNEL_DEAD, subject, str(condition.get("message"))), *limited(lost)]
