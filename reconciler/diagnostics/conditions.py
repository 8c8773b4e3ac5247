"""Decides what is wrong with objects from their condition Ready, and what of it only follows from more. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edgefarm.findings import Code, Finding, Status, fine, unknown, warning, wrong
from reconciler.desired.conditions import READY
from reconciler.ports import Object
from reconciler.status import find_condition

#: Reasons of `Ready=False` that end by themselves.
WAITING: Final = frozenset(("NoEdgeNodes",))
#: So many findings of one kind are told; of the others only how many there are.
_MOST: Final = 10
_OF_CONFIGURATION: Final = frozenset(("WaitingForConfiguration",))
_OF_VAULT: Final = frozenset(("VaultUnavailable", "VaultRefused"))
_OF_NATS: Final = frozenset(("NatsUnavailable", "NatsRefused", "AccountNotStored"))
#: The reasons that objects are not ready for where something that all of them need is wrong.
_REASONS: Final[Mapping[str, frozenset[str]]] = {
    Code.CONFIGURATION_MISSING: _OF_CONFIGURATION,
    Code.CONFIGURATION_INVALID: _OF_CONFIGURATION,
    Code.RECONCILER_WAITING: _OF_CONFIGURATION,
    Code.VAULT_UNREACHABLE: _OF_VAULT,
    Code.VAULT_SEALED: _OF_VAULT,
    Code.VAULT_LOGIN_REFUSED: _OF_VAULT,
    Code.VAULT_SETUP_OUTDATED: _OF_VAULT,
    Code.NATS_UNREACHABLE: _OF_NATS,
    Code.NATS_REFUSES_CONTROLLER: _OF_NATS,
    Code.ACCOUNT_MISSING: _OF_NATS,
}


def explained(findings: Iterable[Finding]) -> frozenset[str]:
    """The reasons of conditions that these findings explain already."""
    failed = {finding.code for finding in findings if finding.status is Status.ERROR}
    return frozenset().union(*(_REASONS.get(code, frozenset()) for code in failed))


def ready(code: Code, subject: str, obj: Object, known: frozenset[str] = frozenset()) -> Finding:
    """Whether an object is Ready, in the words of its condition; `known` are the reasons that are explained already."""
    condition = find_condition(obj, READY)
    if condition is None:
        return wrong(code, subject, "the reconciler has not said anything about it yet", "see whether one leads")
    message, reason = f"{condition.get('reason')}: {condition.get('message')}", condition.get("reason")
    generation = obj["metadata"].get("generation") or 0
    if condition.get("status") == "True" and condition.get("observedGeneration", generation) < generation:
        message = "the reconciler has not looked at its last change yet"
        return warning(code, subject, message, "ask again in some seconds; if it stays, see the reconciler's log")
    if condition.get("status") == "True":
        return fine(code, subject, message)
    if reason in known:
        return unknown(code, subject, f"it waits for what is wrong above ({reason})")
    if reason in WAITING:
        return warning(code, subject, message, "nothing, if that is meant to be so for now")
    advice = f"docs/runbooks/conditions.md#{str(reason).lower()} says what to do"
    return wrong(code, subject, message, advice)


def group(code: Code, kind: str, objects: Sequence[Object], known: frozenset[str] = frozenset()) -> list[Finding]:
    """Those of one kind that are not ready; one finding where all are, and none where there are none."""
    found = [ready(code, f"{kind} {_name(obj)}", obj, known) for obj in objects]
    bad = [finding for finding in found if finding.status is not Status.OK]
    if bad or not found:
        return limited(sorted(bad, key=lambda finding: finding.status is Status.UNKNOWN))
    return [fine(code, kind, f"{len(found)} of {len(found)} are ready")]


def limited(findings: Iterable[Finding]) -> list[Finding]:
    """The first of many findings of one kind, the last of which says how many more there are."""
    found = list(findings)
    if len(found) <= _MOST:
        return found
    rest, last = len(found) - _MOST, found[_MOST]
    more = Finding(last.code, f"{rest} more", last.status, f"as {found[0].subject}", last.advice)
    return [*found[:_MOST], more]


def _name(obj: Object) -> str:
    metadata = obj["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
