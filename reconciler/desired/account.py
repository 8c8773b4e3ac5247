"""Decides what a network's NATS account says, and whether the servers know it as it should be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from edgefarm.api.network import Limits
from edgefarm.errors import InvalidCredential
from edgefarm.nats import jwt
from edgefarm.nats.claims import AccountLimits, ScopedKey, account_claims
from edgefarm.nats.nkeys import Prefix, encode_public
from reconciler.ports import AccountOnServer


@dataclass(frozen=True)
class Envelope:
    """The part of a JWT that says who signed it and when (`issued_at` in Unix seconds), not what it says."""

    issuer: str
    jti: str
    issued_at: int


@dataclass(frozen=True)
class Comparison:
    """Servers that do not know the account, and servers that know something else under it."""

    missing: tuple[str, ...]
    differing: tuple[str, ...]
    newest_issued_at: int

    @property
    def equal(self) -> bool:
        """Whether nothing needs to be pushed."""
        return not self.missing and not self.differing


def account_public(raw: bytes) -> str:
    """Public nkey of an account's identity or signing key, from the raw key in Vault."""
    return encode_public(Prefix.ACCOUNT, raw)


class Accountable(Protocol):
    """The part of a network that its account is made of."""

    @property
    def name(self) -> str: ...

    @property
    def limits(self) -> Limits: ...


def claims_of(network: Accountable, account: str, keys: Sequence[ScopedKey], envelope: Envelope) -> dict[str, Any]:
    """The account's claims, ready to be signed; the same network and keys give the same but for the envelope."""
    return account_claims(
        name=network.name,
        account=account,
        jti=envelope.jti,
        issued_at=envelope.issued_at,
        issuer=envelope.issuer,
        limits=AccountLimits(mem_storage=network.limits.memory_storage, disk_storage=network.limits.file_storage),
        signing_keys=keys,
    )


def compare(answers: Sequence[AccountOnServer], wanted: Mapping[str, Any], trusted: Collection[str]) -> Comparison:
    """Compare what the servers hold with the wanted claims; a JWT of an issuer that is not trusted differs too.

    A server stores whatever it is sent, even when it will not honour the signature.
    """
    missing, differing, newest = [], [], 0
    for answer in answers:
        claims = _read(answer.jwt)
        if claims is None:
            missing.append(answer.server)
            continue
        newest = max(newest, _issued_at(claims))
        if claims.get("iss") not in trusted or not jwt.same_body(claims, wanted):
            differing.append(answer.server)
    return Comparison(tuple(sorted(missing)), tuple(sorted(differing)), newest)


def next_issued_at(now: datetime, newest: int) -> int:
    """A time of issue later than any the servers have seen: merging resolvers keep the JWT with the later one."""
    return max(int(now.timestamp()), newest + 1)


def _read(token: str | None) -> dict[str, Any] | None:
    if not token:
        return None
    try:
        return jwt.decode(token)
    except InvalidCredential:
        return {}


def _issued_at(claims: Mapping[str, Any]) -> int:
    value = claims.get("iat")
    return value if isinstance(value, int) else 0
