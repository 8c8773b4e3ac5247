"""Turns what a pass observed into conditions: reasons for programs, sentences for humans. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm.errors import (
    AccountNotStored,
    EdgefarmError,
    KubernetesRefused,
    NatsRefused,
    NatsUnavailable,
    VaultRefused,
    VaultUnavailable,
)
from reconciler.desired.blueprint import Plan
from reconciler.desired.grants import SigningKey
from reconciler.desired.membership import Claims, Reason, Verdict
from reconciler.desired.reservation import Reservation
from reconciler.desired.rights import Rights
from reconciler.status import Condition, set_conditions

READY: Final = "Ready"
ACCEPTED: Final = "Accepted"
RESERVED: Final = "JetStreamReserved"
#: Conditions that speak of a problem or of an option, and are absent when there is none.
_OPTIONAL: Final = (
    "AnnotationsValid",
    "DefaultPolicy",
    RESERVED,
    "LeafService",
    "ServiceAccounts",
    "StreamsGranted",
    "SubscriptionsGranted",
)

#: Without these a network is not what was asked for.
_DECIDING: Final = ("DefaultPolicy", RESERVED, "LeafService")

#: The reason of `Ready=False` for each kind of failure; the first that fits counts.
_FAILURES: Final[Sequence[tuple[type[EdgefarmError], str]]] = (
    (VaultUnavailable, "VaultUnavailable"),
    (VaultRefused, "VaultRefused"),
    (AccountNotStored, "AccountNotStored"),
    (NatsUnavailable, "NatsUnavailable"),
    (NatsRefused, "NatsRefused"),
    (KubernetesRefused, "KubernetesRefused"),
)


@dataclass(frozen=True)
class Converged:
    """What was found on the servers and in Vault once everything was as it shall be.

    `keys` are the signing keys in use by (namespace, Policy name); `look_again` is when a key changes by itself.
    `mended` are sentences about what was missing or different; `reservation` is None where nothing may be stored.
    """

    account: str
    servers: tuple[str, ...]
    keys: Mapping[tuple[str, str], SigningKey]
    grants: int
    look_again: datetime | None
    mended: tuple[str, ...] = ()
    reservation: Reservation | None = None


def status_with(
    obj: Mapping[str, Any], conditions: Iterable[Condition], now: datetime, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object's new status. Without `facts` those observed earlier stay; conditions not spoken of stay, except the
    optional ones when facts are given."""
    wanted = list(conditions)
    kept = set_conditions(obj, wanted, now=now)
    if facts is None:
        return {**(obj.get("status") or {}), "conditions": kept}
    spoken = {condition.type for condition in wanted}
    return {**facts, "conditions": [c for c in kept if c["type"] in spoken or c["type"] not in _OPTIONAL]}


def network_conditions(plan: Plan, converged: Converged, entry_problem: str = "") -> list[Condition]:
    """The conditions of a network whose account and grants are in place. `entry_problem`: why pods cannot find the
    leaf of their node."""
    conditions = [
        _namespaces_found(plan.missing_namespaces),
        Condition(
            "AccountPushed",
            "True",
            "ReadBack",
            f"the account was read back as it shall be from {_join(converged.servers)}",
        ),
    ]
    default = _default_policy(plan)
    if default is not None:
        conditions.append(default)
    if converged.reservation is not None:
        conditions.append(_reserved(converged.reservation))
    if entry_problem:
        conditions.append(Condition("LeafService", "False", "NameTaken", entry_problem))
    wrong = next((each for each in conditions if each.type in _DECIDING and each.status == "False"), None)
    if wrong is not None:
        ready = Condition(READY, "False", wrong.reason, wrong.message)
    else:
        ready = Condition(READY, "True", "Reconciled", "account and grants are in place")
    return [ready, *conditions]


def network_failure(error: EdgefarmError) -> list[Condition]:
    """The conditions of a network when a pass could not be completed."""
    reason = failure_reason(error)
    conditions = [Condition(READY, "False", reason, f"{_sentence(error)}; it is tried again")]
    if isinstance(error, AccountNotStored):
        conditions.append(Condition("AccountPushed", "False", reason, _sentence(error)))
    elif isinstance(error, NatsUnavailable | NatsRefused):
        conditions.append(Condition("AccountPushed", "Unknown", reason, _sentence(error)))
    return conditions


def network_invalid(problem: str) -> list[Condition]:
    """The condition of a network whose spec cannot be used."""
    return [Condition(READY, "False", "InvalidSpec", f"{problem}; what was there before stays in place")]


def network_waiting() -> list[Condition]:
    """The condition of a network while the reconciler has no configuration."""
    return [Condition(READY, "False", "WaitingForConfiguration", "the ConfigMap 'network' is missing or has mistakes")]


def network_deleting(error: EdgefarmError) -> list[Condition]:
    """The condition of a network that cannot be deleted yet."""
    return [Condition(READY, "False", "Deleting", f"waits to be removed everywhere: {_sentence(error)}")]


def policy_conditions(verdict: Verdict, ready: Condition) -> list[Condition]:
    """What every Policy is told."""
    accepted = verdict.reason in (Reason.ACCEPTED, Reason.TEMPLATE)
    return [ready, Condition(ACCEPTED, "True" if accepted else "False", verdict.reason, verdict.message)]


def policy_ready() -> Condition:
    """The account holds the Policy's key, and its service accounts have their grants."""
    return Condition(READY, "True", "Reconciled", "its service accounts can get credentials")


def policy_outside(verdict: Verdict) -> Condition:
    """`Ready` of a Policy that has no network."""
    if verdict.reason is Reason.TEMPLATE:
        return Condition(READY, "True", verdict.reason, verdict.message)
    return Condition(READY, "False", verdict.reason, verdict.message)


def policy_failure(error: EdgefarmError) -> Condition:
    """`Ready` of a Policy that could not be put into effect yet."""
    return Condition(READY, "False", failure_reason(error), f"{_sentence(error)}; it is tried again")


def policy_problems(claims: Claims, annotation_problem: str, rights: Rights) -> list[Condition]:
    """What does not keep a Policy from working as a whole."""
    conditions = []
    if rights.streams:
        conditions.append(
            Condition(
                "StreamsGranted",
                "False",
                "NotEnforceable",
                f"consumers not granted: {_join(rights.streams)}; NATS would grant all subjects below, too, which the "
                "stream stores and this Policy does not allow: write a filter that ends in '>', or separate streams",
            )
        )
    if rights.subscriptions:
        conditions.append(
            Condition(
                "SubscriptionsGranted",
                "False",
                "NotEnforceable",
                f"not granted: {_join(rights.subscriptions)}; NATS would grant all subjects below, too, where this "
                "Policy allows others (a publisher also its _INBOX.>): write a filter that ends in '>', or separate "
                "Policies",
            )
        )
    if claims.reserved:
        conditions.append(
            Condition(
                "ServiceAccounts",
                "False",
                "ReservedForLeafs",
                f"{_join(claims.reserved)} is the service account of leafs and gets no other rights: name another one",
            )
        )
    elif claims.lost:
        held = ", ".join(f"{account!r} is held by Policy {holder!r}" for account, holder in sorted(claims.lost.items()))
        conditions.append(
            Condition("ServiceAccounts", "False", "ServiceAccountConflict", f"{held}, which is older: remove one claim")
        )
    if annotation_problem:
        conditions.append(Condition("AnnotationsValid", "False", "InvalidAnnotation", f"{annotation_problem}; ignored"))
    return conditions


def policy_facts(network: str, key: SigningKey, claims: Claims) -> dict[str, Any]:
    """What was observed about a Policy that is in effect."""
    return {
        "network": network,
        "key": key.public,
        "keyVersion": key.version,
        "serviceAccounts": list(claims.granted),
    }


def failure_reason(error: EdgefarmError) -> str:
    """One word for what went wrong."""
    return next((reason for kind, reason in _FAILURES if isinstance(error, kind)), type(error).__name__)


def _namespaces_found(missing: Sequence[str]) -> Condition:
    if not missing:
        return Condition("NamespacesFound", "True", "AllFound", "all listed namespaces exist")
    return Condition(
        "NamespacesFound",
        "False",
        "NamespaceMissing",
        f"not found: {_join(missing)}; the rest works, and these join when they are created",
    )


def _reserved(reservation: Reservation) -> Condition:
    if reservation.made is None:
        return Condition(RESERVED, "Unknown", "NatsUnavailable", reservation.problem.rstrip(". "))
    if not reservation.made:
        return Condition(RESERVED, "False", "NotReserved", reservation.problem)
    return Condition(RESERVED, "True", "Reserved", "the hub has set aside what spec.limits allow")


def _default_policy(plan: Plan) -> Condition | None:
    if plan.template.problem:
        return Condition("DefaultPolicy", "False", plan.template.reason, plan.template.problem)
    if plan.copies.taken:
        return Condition(
            "DefaultPolicy",
            "False",
            "NameTaken",
            f"a Policy named {plan.blueprint.name!r} that is not ours exists in {_join(plan.copies.taken)} and is left "
            "alone: rename it, so that the default policy can be copied there",
        )
    if plan.template.permissions is None:
        return None
    copies = len(plan.copies.wanted)
    return Condition("DefaultPolicy", "True", "Copied", f"copied to {copies} namespace{'' if copies == 1 else 's'}")


def _join(names: Sequence[str]) -> str:
    return ", ".join(names)


def _sentence(error: EdgefarmError) -> str:
    return str(error).rstrip(". ")
