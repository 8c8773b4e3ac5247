"""NATS credentials of this pod: how they are made for an access document, and what is known of them. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from edgefarm.errors import InvalidCredential
from edgefarm.nats import claims, creds, jwt, nkeys
from sidecar.access import AccessDocument, Signer

#: Never renew later than this part of the lifetime, whatever the access document says.
LATEST_RENEWAL: Final = 2 / 3


@dataclass(frozen=True)
class Credentials:
    """A user JWT and its seed (`repr` hides both), and the access document they were made for. Unix seconds."""

    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    access: AccessDocument
    account: str
    signing_key: str
    issued_at: int
    expires_at: int

    @classmethod
    def parse(cls, text: str, access: AccessDocument) -> Credentials:
        """Read a creds file; InvalidCredential when it is not one of ours.

        Account and key are those of the JWT, not of the document: after a crash between two writes they may differ.
        """
        token, seed = creds.parse_creds(text)
        body = jwt.decode(token, verify=False)
        nats = body.get("nats")
        account = nats.get("issuer_account") if isinstance(nats, dict) else None
        issuer, issued_at, expires_at = body.get("iss"), body.get("iat"), body.get("exp")
        if not (isinstance(account, str) and isinstance(issuer, str)):
            raise InvalidCredential("The user JWT names no account or no issuer.")
        if not (isinstance(issued_at, int) and isinstance(expires_at, int)):
            raise InvalidCredential("The user JWT says not when it was issued or when it expires.")
        return cls(token, seed, access, account, issuer, issued_at, expires_at)

    def usable(self, now: float) -> bool:
        """Whether a server that knows the key accepts them now."""
        return now < self.expires_at

    def suit(self, access: AccessDocument) -> bool:
        """Whether they are what this document asks for: same account and key, same servers."""
        return (self.account, self.signing_key, self.access.hub, self.access.leaf, self.access.leaf_ca) == (
            access.account,
            access.signing_key,
            access.hub,
            access.leaf,
            access.leaf_ca,
        )

    def outlived_by(self, renewed: Credentials, next_renewal: float) -> bool:
        """Whether who uses these must change to `renewed` now: another key, or the next renewal would come too late."""
        latest = self.issued_at + (self.expires_at - self.issued_at) * LATEST_RENEWAL
        same_key = (self.account, self.signing_key) == (renewed.account, renewed.signing_key)
        return not same_key or next_renewal > latest

    def file(self) -> str:
        """The content of the creds file; a secret."""
        return creds.format_creds(self.jwt, self.seed)


def issue(
    access: AccessDocument, user: str, *, now: int, identifier: str, sign: Callable[[bytes], bytes]
) -> Credentials:
    """Make credentials with a new user key.

    Every issue takes a new key, at each start and each renewal: nothing then has to keep an old seed, and a seed that
    leaked is worth no more than the JWT it leaked with. `sign` is asked for the signature of the access document's
    key; what it raises passes through. `identifier` is the token's random `jti`.
    """
    expires_at = now + access.lifetime_seconds
    token, seed = issue_user(access, user, issued_at=now, expires_at=expires_at, identifier=identifier, sign=sign)
    return Credentials(token, seed, access, access.account, access.signing_key, now, expires_at)


def issue_user(
    signer: Signer, user: str, *, issued_at: int, expires_at: int, identifier: str, sign: Callable[[bytes], bytes]
) -> tuple[str, str]:
    """A user JWT under the signer's scope and the seed of its new key, as `issue` says."""
    key = nkeys.generate_user()
    body = claims.user_claims(
        name=user,
        subject=key.public,
        issuer=signer.signing_key,
        account=signer.account,
        jti=identifier,
        issued_at=issued_at,
        expires_at=expires_at,
    )
    unsigned = jwt.signing_input(body)
    return jwt.assemble(unsigned, sign(unsigned)), key.seed
