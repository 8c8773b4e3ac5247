"""Decides what is wrong with a network, from its objects in Kubernetes and what Vault and NATS hold for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm import names
from edgefarm.errors import EdgefarmError
from edgefarm.findings import Code, Finding, fine, unknown, wrong
from reconciler.controllers.inspection import AccountLook, Holdings
from reconciler.desired.conditions import READY
from reconciler.desired.grants import Grant, VaultGrants
from reconciler.desired.reservation import Reservation
from reconciler.ports import Object
from reconciler.status import find_condition

#: So many findings of one kind are told; of the others only how many there are.
_MOST: Final = 10
_MENDED: Final = (
    "the reconciler puts it back with its next pass, at the latest after `resync` of the configuration; when it stays "
    "wrong, the Network's conditions and the reconciler's log say why; find out who changed it"
)


@dataclass(frozen=True)
class NetworkObjects:
    """What Kubernetes holds for a network; `obj` None: there is no such Network."""

    name: str
    obj: Object | None
    policies: Sequence[Object] = ()
    edge_networks: Sequence[Object] = ()
    streams: Sequence[Object] = ()


@dataclass(frozen=True)
class NetworkHoldings:
    """What Vault and NATS hold for it, and what Vault shall hold (`wanted`, by role).

    An error stands for what could not be read, None for what was not asked, because something before it failed.
    """

    holdings: Holdings | EdgefarmError
    wanted: Mapping[str, Grant] | EdgefarmError | None = None
    account: AccountLook | EdgefarmError | None = None
    reservation: Reservation | None = None


def check_objects(objects: NetworkObjects) -> list[Finding]:
    """The Network, and the Policies, EdgeNetworks and Streams in it, as their conditions tell."""
    subject = f"Network {objects.name}"
    if objects.obj is None:
        advice = "create it in the controller's namespace, or correct the name: `edgefarm status` lists what exists"
        return [wrong(Code.NETWORK_ABSENT, subject, "there is no such Network", advice)]
    return [
        fine(Code.NETWORK_ABSENT, subject, "it exists"),
        ready(Code.NETWORK_NOT_READY, subject, objects.obj),
        *_group(Code.POLICY_NOT_READY, "Policy", objects.policies),
        *_group(Code.EDGE_NETWORK_NOT_READY, "EdgeNetwork", objects.edge_networks),
        *_group(Code.STREAM_NOT_READY, "Stream", objects.streams),
    ]


def check_holdings(name: str, found: NetworkHoldings, roles: frozenset[str] | None = None) -> list[Finding]:
    """Keys, account and grants; of the grants only those of `roles`, where these are given."""
    subject = f"Network {name}"
    holdings = found.holdings
    if isinstance(holdings, EdgefarmError):
        advice = "see the findings about Vault; ask again"
        return [unknown(Code.ROLE_MISSING, subject, f"Vault did not tell what it holds: {_said(holdings)}", advice)]
    return [
        *_keys(name, holdings),
        *_account(subject, found.account),
        *_grants(subject, holdings.grants, found.wanted, roles),
        *_jetstream(subject, found.reservation),
    ]


def ready(code: Code, subject: str, obj: Object) -> Finding:
    """Whether an object is Ready, in the words of its condition."""
    condition = find_condition(obj, READY)
    advice = "docs/runbooks.md has an entry for each reason; `kubectl describe` shows all conditions of the object"
    if condition is None:
        return wrong(code, subject, "the reconciler has not said anything about it yet", "see whether one leads")
    message = f"{condition.get('reason')}: {condition.get('message')}"
    if condition.get("status") != "True":
        return wrong(code, subject, message, advice)
    return fine(code, subject, message)


def limited(findings: Iterable[Finding]) -> list[Finding]:
    """The first of many findings of one kind, the last of which says how many more there are."""
    found = list(findings)
    if len(found) <= _MOST:
        return found
    rest, last = len(found) - _MOST, found[_MOST]
    more = Finding(last.code, f"{rest} more", last.status, f"as {found[0].subject}", last.advice)
    return [*found[:_MOST], more]


def _group(code: Code, kind: str, objects: Sequence[Object]) -> list[Finding]:
    found = [ready(code, f"{kind} {_name(obj)}", obj) for obj in objects]
    bad = [finding for finding in found if finding.advice]
    if bad or not found:
        return limited(bad)
    return [fine(code, kind, f"{len(found)} of {len(found)} are ready")]


def _keys(name: str, holdings: Holdings) -> list[Finding]:
    missing = [*holdings.missing_keys, *([] if holdings.account else [names.account_key(name)])]
    if not missing:
        return [fine(Code.KEY_MISSING, f"Network {name}", "all its keys are in Vault")]
    message = "it is not in Vault, so nothing can be signed with it"
    return limited(wrong(Code.KEY_MISSING, f"transit key {key}", message, _MENDED) for key in missing)


def _account(subject: str, look: AccountLook | EdgefarmError | None) -> list[Finding]:
    if not isinstance(look, AccountLook):
        message = _said(look) if look is not None else "it was not asked for, because something before that failed"
        return [unknown(Code.ACCOUNT_MISSING, subject, f"its account on the NATS servers is not known: {message}")]
    missing, differing = look.comparison.missing, look.comparison.differing
    found = []
    if missing:
        message = f"its account is not known to {', '.join(missing)}: its clients are refused there"
        found.append(wrong(Code.ACCOUNT_MISSING, subject, message, _MENDED))
    if differing:
        message = f"its account on {', '.join(differing)} is not what its Policies say: rights are missing or too many"
        found.append(wrong(Code.ACCOUNT_DIFFERS, subject, message, _MENDED))
    return found or [fine(Code.ACCOUNT_DIFFERS, subject, f"its account is as it shall be on {', '.join(look.servers)}")]


def _grants(
    subject: str,
    held: VaultGrants,
    wanted: Mapping[str, Grant] | EdgefarmError | None,
    roles: frozenset[str] | None,
) -> list[Finding]:
    if isinstance(wanted, EdgefarmError) or wanted is None:
        message = _said(wanted) if wanted is not None else "something before them failed"
        return [unknown(Code.ROLE_MISSING, subject, f"the grants cannot be compared: {message}")]
    looked_at = [grant for role, grant in sorted(wanted.items()) if roles is None or role in roles]
    bad = [finding for grant in looked_at for finding in _grant(grant, held)]
    if bad:
        return limited(bad)
    message = f"grants that are in Vault as they shall be: {len(looked_at)} of {len(looked_at)}"
    return [fine(Code.ROLE_MISSING, subject, message)] if looked_at else []


def _grant(grant: Grant, held: VaultGrants) -> Iterable[Finding]:
    """Role, Vault policy and access document of one service account."""
    role, policy = grant.role.name, names.vault_policy(grant.role.name)
    account = f"{grant.role.namespace}/{grant.role.service_account}"
    if role not in held.roles or policy not in held.policies:
        what = "role" if role not in held.roles else "Vault policy"
        message = f"its {what} is missing, so the service account {account} gets no credentials"
        yield wrong(Code.ROLE_MISSING, f"grant {role}", message, _MENDED)
    elif held.roles[role] != grant.role or held.policies[policy] != grant.policy:
        what = "role" if held.roles[role] != grant.role else "Vault policy"
        message = f"its {what} was changed, so {account} gets no credentials, or rights that nobody wrote down"
        yield wrong(Code.ROLE_DIFFERS, f"grant {role}", message, _MENDED)
    document = held.documents.get(grant.path)
    if document is None:
        message = f"it is missing, so sidecars of {account} do not know where to connect"
        yield wrong(Code.DOCUMENT_MISSING, f"document {grant.path}", message, _MENDED)
    elif document != grant.document:
        members = sorted(
            name for name in {*document, *grant.document} if document.get(name) != grant.document.get(name)
        )
        message = f"it is not what sidecars of {account} have to know; different: {', '.join(members)}"
        yield wrong(Code.DOCUMENT_DIFFERS, f"document {grant.path}", message, _MENDED)


def _jetstream(subject: str, reservation: Reservation | None) -> list[Finding]:
    if reservation is None:
        return []
    if reservation.made is None:
        return [unknown(Code.JETSTREAM_OFF, subject, f"JetStream was not asked: {reservation.problem.rstrip('. ')}")]
    if not reservation.made:
        advice = "give the NATS servers JetStream storage for the limits of all Networks, or lower spec.limits"
        return [wrong(Code.JETSTREAM_OFF, subject, reservation.problem, advice)]
    return [fine(Code.JETSTREAM_OFF, subject, "JetStream has set its storage aside")]


def _name(obj: Object) -> str:
    metadata = obj["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))


def _said(error: EdgefarmError) -> str:
    return str(error).rstrip(". ")
