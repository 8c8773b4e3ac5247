"""Owns the agent's NATS user: how it is made with Vault, and for how long it may be used. Vault is called in place:
`Login.issue` belongs in a thread."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.settings import Identity
from edgefarm.errors import InvalidResource, Unavailable, VaultRefused, VaultUnavailable
from edgefarm.nats import jwt, nkeys
from edgefarm.nats.claims import user_claims
from edgefarm.vault import Vault

_LAYOUT: Final = 1
#: Never renew later than this part of the lifetime, whatever the access document says.
_LATEST_RENEWAL: Final = 2 / 3


@dataclass(frozen=True)
class Access:
    """What the reconciler tells the agents: where NATS is, and the key that signs their users."""

    account: str
    signing_key: str
    transit_key: str
    key_version: int
    urls: tuple[str, ...]
    renew_every: int
    """Seconds."""
    lifetime: int
    """Seconds."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Access:
        """Read the access document; InvalidResource with the member that is wrong. Unknown members are ignored."""
        if document.get("version") != _LAYOUT:
            raise InvalidResource("version", f"is {document.get('version')!r}; this agent reads layout {_LAYOUT}")
        urls = document.get("hub")
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) and url for url in urls):
            raise InvalidResource("hub", "must be a list of at least one URL")
        return cls(
            account=_text(document, "account"),
            signing_key=_text(document, "signingKey"),
            transit_key=_text(document, "transitKey"),
            key_version=_positive(document, "keyVersion"),
            urls=tuple(urls),
            renew_every=_positive(document, "renewEverySeconds"),
            lifetime=_positive(document, "lifetimeSeconds"),
        )


@dataclass(frozen=True)
class Credentials:
    """A NATS user of this agent. Times are Unix seconds."""

    nkey: str
    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    urls: tuple[str, ...]
    renew_at: float
    expires_at: float


class Login:
    """Trades the service account's token for NATS users."""

    def __init__(self, vault: Vault, identity: Identity) -> None:
        self._vault = vault
        self._identity = identity

    def issue(self, now: float) -> Credentials:
        """Log in, read the access document and have Vault sign a new user: three requests.

        A new key each time, so that no seed has to be kept. Raises Unavailable, VaultRefused, InvalidResource.
        """
        self._log_in()
        document = self._vault.read_document(self._identity.document)
        if document is None:
            raise VaultUnavailable(
                f"Vault holds no access document {self._identity.document!r} for the agents yet: is mesh.enabled true "
                "in the reconciler's configuration?"
            )
        try:
            access = Access.parse(document)
        except InvalidResource as error:
            raise InvalidResource(
                f"{error.field} of the access document {self._identity.document!r}", error.message
            ) from error
        user = nkeys.generate_user()
        expires_at = int(now) + access.lifetime
        claims = user_claims(
            name=self._identity.nats_user,
            subject=user.public,
            issuer=access.signing_key,
            account=access.account,
            jti=secrets.token_hex(16),
            issued_at=int(now),
            expires_at=expires_at,
        )
        data = jwt.signing_input(claims)
        token = jwt.assemble(data, self._vault.sign(access.transit_key, access.key_version, data))
        renew_at = now + min(access.renew_every, access.lifetime * _LATEST_RENEWAL)
        return Credentials(user.public, token, user.seed, access.urls, renew_at, expires_at)

    def _log_in(self) -> None:
        try:
            self._vault.login(self._identity.role, read_token(self._identity.vault_token))
        except VaultRefused as error:
            # Vault knows no reasons that would help.
            raise VaultRefused(
                f"{error}. The reconciler makes this role for the service account {self._identity.service_account!r} "
                f"in {self._identity.namespace!r} while mesh.enabled is true in its configuration.",
                error.status,
            ) from error


def read_token(path: Path) -> str:
    """A projected token as it is now; Unavailable when there is none yet."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no token"
        raise Unavailable(f"The token file {path} cannot be read: {reason}.") from None
    if not token:
        raise Unavailable(f"The token file {path} is empty.")
    return token


def _text(document: Mapping[str, Any], member: str) -> str:
    value = document.get(member)
    if not isinstance(value, str) or not value:
        raise InvalidResource(member, "must be a non-empty string")
    return value


def _positive(document: Mapping[str, Any], member: str) -> int:
    value = document.get(member)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise InvalidResource(member, "must be a whole number greater than 0")
    return value
