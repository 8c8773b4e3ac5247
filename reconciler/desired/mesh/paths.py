"""Says by which path a device reaches each of its peers, and writes that for its status without needless changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from edgefarm.api.edge_device import MOST_PEERS, PATHS
from reconciler.desired.mesh.members import Member
from reconciler.desired.mesh.observed import Observation, SeenPeer
from reconciler.desired.round_trip import write_round_trip
from reconciler.timestamps import rfc3339

Path = Literal["relay", "direct", "none"]

#: Live tunnels shake hands every two minutes, each at its own time. That alone is worth a write when it moved by this.
_HANDSHAKE_STEP: Final = timedelta(hours=1)


@dataclass(frozen=True)
class PeerPath:
    """A peer by its device's name, and how it is reached."""

    name: str
    path: Path
    seen: SeenPeer


def peer_paths(member: Member, peers: Iterable[Member], observation: Observation) -> tuple[PeerPath, ...]:
    """The paths of a device to its peers, by name; those that its host does not know are left out.

    An edge host reaches gateways by `relay`, because that is what they are for, and other edge hosts `direct` while
    their tunnel carries, else through a gateway whose tunnel is alive. A gateway reaches everybody `direct`.
    """
    known = [(peer, observation.peers[peer.public_key]) for peer in peers if peer.public_key in observation.peers]
    relayed = any(seen.alive for peer, seen in known if peer.gateway)
    paths = (
        PeerPath(peer.name, _gateways_path(seen) if member.gateway else _edges_path(peer, seen, relayed), seen)
        for peer, seen in known
    )
    return tuple(sorted(paths, key=lambda each: each.name))


def path_counts(paths: Iterable[PeerPath]) -> dict[str, int]:
    """`status.counts`."""
    counts = dict.fromkeys(PATHS, 0)
    for each in paths:
        counts[each.path] += 1
    return counts


def peer_entries(paths: Sequence[PeerPath], before: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`status.peers`, the first ones by name. `before` is what it was, and what it stays while nothing has happened but
    handshakes; when there is something to write, the times of all of them are written as well."""
    old = {str(entry.get("name")): entry for entry in before}
    entries = [_entry(each, old.get(each.name) or {}) for each in paths[:MOST_PEERS]]
    if all(_says_the_same(entry, old.get(entry["name"]) or {}) for entry in entries):
        for entry in entries:
            entry.update(_handshake_of(old.get(entry["name"]) or {}))
    return entries


def _gateways_path(seen: SeenPeer) -> Path:
    return "direct" if seen.alive else "none"


def _edges_path(peer: Member, seen: SeenPeer, relayed: bool) -> Path:
    if peer.gateway:
        return "relay" if seen.alive else "none"
    if seen.alive and seen.carrying:
        return "direct"
    return "relay" if relayed else "none"


def _entry(path: PeerPath, before: Mapping[str, Any]) -> dict[str, Any]:
    seen = path.seen
    entry: dict[str, Any] = {"name": path.name, "path": path.path}
    if seen.handshake is not None:
        entry["lastHandshake"] = rfc3339(seen.handshake)
    if seen.endpoint:
        entry["endpoint"] = seen.endpoint
    round_trip = write_round_trip(seen.rtt, before.get("rtt") or "")
    return entry | ({"rtt": round_trip} if round_trip and seen.alive else {})


def _says_the_same(entry: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether nothing but the time of a handshake has changed, and that not by much."""
    new, old = entry.get("lastHandshake"), before.get("lastHandshake")
    if {**entry, "lastHandshake": old} != {**before, "lastHandshake": old}:
        return False
    if new is None or old is None:
        return new is old
    return abs(datetime.fromisoformat(new) - datetime.fromisoformat(old)) < _HANDSHAKE_STEP


def _handshake_of(before: Mapping[str, Any]) -> dict[str, Any]:
    return {"lastHandshake": before["lastHandshake"]} if "lastHandshake" in before else {}
