"""Turns what a pass found of a stream in its domains into the status of its Stream. Nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from edgefarm import names
from edgefarm.api.stream import Stream
from edgefarm.errors import EdgefarmError
from reconciler.desired.conditions import ACCEPTED, READY, failure_reason
from reconciler.desired.membership import Reason, Verdict
from reconciler.desired.streams import Place, Refusal
from reconciler.desired.streams_config import Observed
from reconciler.ports import Object
from reconciler.status import Condition

State = Literal["Present", "Pending", "Unreachable", "Refused"]
#: Refusals that end by themselves; the Stream is accepted all the same.
_WAITING: Final = ("NoEdgeNodes",)
#: So many domains are named in a sentence.
_NAMED: Final = 3


@dataclass(frozen=True)
class Found:
    """What became of the stream in one domain. `observed` is the stream there, where it is ours; `reason` and `message`
    belong to a refusal, or to what it waits for."""

    place: Place
    state: State
    observed: Observed | None = None
    reason: str = ""
    message: str = ""


def conditions_settled(found: Sequence[Found]) -> list[Condition]:
    """The conditions of a Stream after a pass that did all it could."""
    return [_ready(found), _accepted("belongs to its network, and nothing stands against it")]


def conditions_refused(refusal: Refusal, *, exists: bool) -> list[Condition]:
    """The conditions of a Stream that cannot be as it is written; where it `exists` already it is left as it was."""
    message = f"{refusal.message}; what was there before stays in place" if exists else refusal.message
    ready = Condition(READY, "False", refusal.reason, message)
    if refusal.reason in _WAITING:
        return [ready, _accepted("belongs to its network")]
    return [ready, Condition(ACCEPTED, "False", refusal.reason, message)]


def conditions_outside(verdict: Verdict, *, exists: bool) -> list[Condition]:
    """The conditions of a Stream that belongs to no network."""
    return conditions_refused(Refusal(verdict.reason, verdict.message), exists=exists)


def conditions_waiting() -> list[Condition]:
    """The condition of a Stream while the reconciler has no configuration."""
    return [Condition(READY, "False", "WaitingForConfiguration", "the ConfigMap 'network' is missing or has mistakes")]


def conditions_failed(error: EdgefarmError) -> list[Condition]:
    """The condition of a Stream when a pass could not be completed."""
    return [Condition(READY, "False", failure_reason(error), f"{_sentence(error)}; it is tried again")]


def conditions_deleting(error: EdgefarmError) -> list[Condition]:
    """The condition of a Stream that cannot be deleted yet."""
    return [Condition(READY, "False", "Deleting", f"waits to be removed from JetStream: {_sentence(error)}")]


def facts(network: str, stream: Stream, found: Sequence[Found], before: Mapping[str, Any]) -> dict[str, Any]:
    """What was observed. The name stays once the stream was seen: under it our streams are on nodes that are away."""
    seen = any(each.observed is not None for each in found)
    name = stream.name if seen else before.get("name")
    return {
        "network": network,
        **({"name": name} if name else {}),
        "locations": [_location(each) for each in sorted(found, key=lambda each: each.place.domain)],
    }


def moved(status: Mapping[str, Any], stream: Stream, network: str) -> Refusal | None:
    """What was changed of a Stream that would leave its stored messages behind in another place. `status` is that of
    the Stream, whose network then still exists."""
    if not status.get("name"):
        return None
    domains = {entry["domain"] for entry in status.get("locations") or ()}
    location = "main" if names.MAIN_DOMAIN in domains else "edge"
    for field, old, new in (
        ("name", status["name"], stream.name),
        ("location", location if domains else stream.location, stream.location),
        ("network", status.get("network", network), network),
    ):
        if old != new:
            return Refusal(
                "CannotChange",
                f"spec.{field} (from {old} to {new}) cannot be changed: delete the Stream and create it anew if its "
                "data may go",
            )
    return None


def _ready(found: Sequence[Found]) -> Condition:
    refused = [each for each in found if each.state == "Refused"]
    if refused:
        return Condition(READY, "False", refused[0].reason, _grouped(refused))
    pending = [each for each in found if each.state == "Pending"]
    if pending:
        return Condition(READY, "False", pending[0].reason, _grouped(pending))
    away = [each.place.domain for each in found if each.state == "Unreachable"]
    if not away:
        domains = "domain main" if found[0].place.node is None else f"all {len(found)} domains"
        return Condition(READY, "True", "Reconciled", f"is as it shall be in {domains}")
    if len(away) == len(found):
        message = f"no node can be reached ({_some(away)}): what has to be done there is done when they return"
        return Condition(READY, "False", "Unreachable", message)
    present = len(found) - len(away)
    return Condition(
        READY, "True", "Reconciled", f"is as it shall be in {present} of {len(found)} domains; away: {_some(away)}"
    )


def _grouped(troubled: Sequence[Found]) -> str:
    """Each message once, with the domains that it is about."""
    domains: dict[str, list[str]] = {}
    for each in troubled:
        domains.setdefault(each.message, []).append(each.place.domain)
    return "; ".join(f"{_some(where)}: {message}" for message, where in domains.items())


def _some(domains: Sequence[str]) -> str:
    more = len(domains) - _NAMED
    return ", ".join(sorted(domains)[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _location(found: Found) -> Object:
    entry: Object = {"domain": found.place.domain, "state": found.state}
    if found.place.node is not None:
        entry["node"] = found.place.node
    if found.observed is not None:
        entry |= {"messages": found.observed.messages, "bytes": found.observed.size}
        if found.observed.lag is not None:
            entry["lag"] = found.observed.lag
    return entry


def _accepted(message: str) -> Condition:
    return Condition(ACCEPTED, "True", Reason.ACCEPTED, message)


def _sentence(error: EdgefarmError) -> str:
    return str(error).rstrip(". ")
