"""The credentials of a leaf: a user in its network and one in the system account, issued and kept together. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgefarm.errors import InvalidCredential
from edgefarm.nats.creds import format_creds
from sidecar.access import AccessDocument, Signer
from sidecar.credentials import Credentials, issue_user
from sidecar.leaf.access import LeafAccess


@dataclass(frozen=True)
class Names:
    """Names of the two users: the one in the network decides about rights, the other is for people."""

    network: str
    system: str


@dataclass(frozen=True)
class LeafCredentials(Credentials):
    """Those of the network's user, with the system account's beside them; both end at the same time."""

    access: LeafAccess
    system_jwt: str = field(repr=False)
    system_seed: str = field(repr=False)
    system_account: str
    system_signing_key: str

    @classmethod
    def of_files(cls, network: str, system: str, access: LeafAccess) -> LeafCredentials:
        """Read both creds files; InvalidCredential when one is not of ours."""
        one, other = Credentials.parse(network, access), Credentials.parse(system, access)
        if one.account == other.account:
            raise InvalidCredential("Both users belong to the same account.")
        return cls(
            jwt=one.jwt,
            seed=one.seed,
            access=access,
            account=one.account,
            signing_key=one.signing_key,
            issued_at=min(one.issued_at, other.issued_at),
            expires_at=min(one.expires_at, other.expires_at),
            system_jwt=other.jwt,
            system_seed=other.seed,
            system_account=other.account,
            system_signing_key=other.signing_key,
        )

    def suit(self, access: AccessDocument) -> bool:
        """Whether they, and the document that they were made for, are what this document asks for."""
        return (
            super().suit(access)
            and isinstance(access, LeafAccess)
            and (self.system_account, self.system_signing_key) == (access.system.account, access.system.signing_key)
            and self.access.server == access.server
        )

    def system_file(self) -> str:
        """The content of the creds file of the system account's user; a secret."""
        return format_creds(self.system_jwt, self.system_seed)


def issue_leaf(
    access: LeafAccess,
    names: Names,
    *,
    now: int,
    identifier: Callable[[], str],
    sign: Callable[[Signer, bytes], bytes],
) -> LeafCredentials:
    """Make both users, each with a new key; what `sign` raises passes through."""

    def user(signer: Signer, name: str) -> tuple[str, str]:
        return issue_user(
            signer,
            name,
            issued_at=now,
            expires_at=expires_at,
            identifier=identifier(),
            sign=lambda data: sign(signer, data),
        )

    expires_at = now + access.lifetime_seconds
    (token, seed), (system_token, system_seed) = user(access, names.network), user(access.system, names.system)
    return LeafCredentials(
        jwt=token,
        seed=seed,
        access=access,
        account=access.account,
        signing_key=access.signing_key,
        issued_at=now,
        expires_at=expires_at,
        system_jwt=system_token,
        system_seed=system_seed,
        system_account=access.system.account,
        system_signing_key=access.system.signing_key,
    )
