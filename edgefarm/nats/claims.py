"""Owns the bodies of the JWTs we issue: operator, account, user, deletion.

Plain dictionaries in the layout of version 2 of NATS' JWT claims. Whoever signs them (Vault's transit, a test) chooses
`jti` at random and passes the time in as Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgefarm.nats.leaf_rights import SYSTEM_LEAF_TEMPLATE
from edgefarm.nats.templates import SYSTEM_CONTROLLER_TEMPLATE, PermissionTemplate

_VERSION: Final = 2
_UNLIMITED: Final = -1


@dataclass(frozen=True)
class ScopedKey:
    """A signing key of an account whose users get exactly `template`; `role` is a name for humans."""

    key: str
    role: str
    template: PermissionTemplate

    def claims(self) -> dict[str, Any]:
        """The entry in an account's `signing_keys`."""
        return {"kind": "user_scope", "key": self.key, "role": self.role, "template": self.template.claims()}


@dataclass(frozen=True)
class AccountLimits:
    """Limits of an account; -1 is unlimited, storage is in bytes. JetStream is off when both storages are 0."""

    mem_storage: int = _UNLIMITED
    disk_storage: int = _UNLIMITED
    streams: int = _UNLIMITED
    consumer: int = _UNLIMITED
    subs: int = _UNLIMITED
    data: int = _UNLIMITED
    payload: int = _UNLIMITED
    imports: int = _UNLIMITED
    exports: int = _UNLIMITED
    conn: int = _UNLIMITED
    leaf: int = _UNLIMITED

    def claims(self) -> dict[str, Any]:
        """The `limits` member of an account. Tokens that need no private key (bearer) are never accepted."""
        return {**asdict(self), "wildcards": True, "disallow_bearer": True}


def operator_claims(
    *, name: str, operator: str, signing_keys: Sequence[str], system_account: str, jti: str, issued_at: int
) -> dict[str, Any]:
    """An operator, signed by its own identity key.

    With strict signing key usage the identity key is worthless for anything else: accounts must be signed by one of
    `signing_keys`, account deletions too.
    """
    return {
        **_envelope(name, operator, operator, jti, issued_at),
        "nats": {
            "type": "operator",
            "version": _VERSION,
            "signing_keys": list(signing_keys),
            "system_account": system_account,
            "strict_signing_key_usage": True,
        },
    }


def account_claims(
    *,
    name: str,
    account: str,
    jti: str,
    issued_at: int,
    issuer: str,
    limits: AccountLimits,
    signing_keys: Sequence[ScopedKey | str],
) -> dict[str, Any]:
    """An account, to be signed by `issuer`, a signing key of the operator; a plain string is an unscoped key."""
    keys = [key if isinstance(key, str) else key.claims() for key in signing_keys]
    return {
        **_envelope(name, account, issuer, jti, issued_at),
        "nats": {
            "type": "account",
            "version": _VERSION,
            "limits": limits.claims(),
            "signing_keys": sorted(keys, key=lambda entry: entry if isinstance(entry, str) else str(entry["key"])),
        },
    }


def system_account_claims(
    *, name: str, account: str, controller_key: str, leaf_key: str, jti: str, issued_at: int, issuer: str
) -> dict[str, Any]:
    """The system account, with the scoped signing keys of the reconciler's own user and of leafs. It has no
    JetStream."""
    return account_claims(
        name=name,
        account=account,
        jti=jti,
        issued_at=issued_at,
        issuer=issuer,
        limits=AccountLimits(mem_storage=0, disk_storage=0),
        signing_keys=[
            ScopedKey(controller_key, "controller", SYSTEM_CONTROLLER_TEMPLATE),
            ScopedKey(leaf_key, "leaf", SYSTEM_LEAF_TEMPLATE),
        ],
    )


def user_claims(
    *, name: str, subject: str, issuer: str, account: str, jti: str, issued_at: int, expires_at: int
) -> dict[str, Any]:
    """A user under a scoped key: `issuer` signs, its template decides; anything that limits here would be refused."""
    return {
        **_envelope(name, subject, issuer, jti, issued_at),
        "exp": expires_at,
        "nats": {"type": "user", "version": _VERSION, "issuer_account": account},
    }


def delete_claims(*, accounts: Sequence[str], issuer: str, jti: str, issued_at: int) -> dict[str, Any]:
    """A request to delete accounts; the server wants it self-issued by a signing key of the operator."""
    return {
        **_envelope("delete", issuer, issuer, jti, issued_at),
        "nats": {"type": "generic", "version": _VERSION, "accounts": sorted(accounts)},
    }


def _envelope(name: str, subject: str, issuer: str, jti: str, issued_at: int) -> dict[str, Any]:
    return {"name": name, "sub": subject, "iss": issuer, "jti": jti, "iat": issued_at}
