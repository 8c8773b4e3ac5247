"""Decides what is wrong with a network, from its objects in Kubernetes and what Vault and NATS hold for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgefarm import names
from edgefarm.errors import EdgefarmError
from edgefarm.findings import Code, Finding, fine, unknown, wrong
from reconciler.controllers.inspection import AccountLook, Holdings
from reconciler.desired.grants import Grant, VaultGrants
from reconciler.desired.reservation import Reservation
from reconciler.diagnostics.conditions import group, limited, ready
from reconciler.ports import Object

_MENDED: Final = (
    "the reconciler puts it back when it next looks, at the latest after `resync` of the configuration, at once after "
    "`kubectl rollout restart deployment network-controller` in its namespace; then find out who changed it"
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


def check_objects(objects: NetworkObjects, known: frozenset[str] = frozenset()) -> list[Finding]:
    """The Network, and the Policies, EdgeNetworks and Streams in it, as their conditions tell; `known` are the reasons
    that are explained already."""
    subject = f"Network {objects.name}"
    if objects.obj is None:
        advice = "create it in the controller's namespace, or correct the name: `edgefarm status` lists what exists"
        return [wrong(Code.NETWORK_ABSENT, subject, "there is no such Network", advice)]
    return [
        fine(Code.NETWORK_ABSENT, subject, "it exists"),
        ready(Code.NETWORK_NOT_READY, subject, objects.obj, known),
        *group(Code.POLICY_NOT_READY, "Policy", objects.policies, known),
        *group(Code.EDGE_NETWORK_NOT_READY, "EdgeNetwork", objects.edge_networks, known),
        *group(Code.STREAM_NOT_READY, "Stream", objects.streams, known),
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
        return [unknown(Code.JETSTREAM_OFF, subject, f"JetStream did not tell: {reservation.problem.rstrip('. ')}")]
    if not reservation.made:
        advice = "give the NATS servers JetStream storage for the limits of all Networks, or lower spec.limits"
        return [wrong(Code.JETSTREAM_OFF, subject, reservation.problem, advice)]
    return [fine(Code.JETSTREAM_OFF, subject, "JetStream has set its storage aside")]


def _said(error: EdgefarmError) -> str:
    return str(error).rstrip(". ")
