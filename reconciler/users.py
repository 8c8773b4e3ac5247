"""Makes NATS users for the reconciler and what works for it, with keys that stay in Vault."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgefarm import names
from edgefarm.errors import NatsUnavailable
from edgefarm.nats import jwt, nkeys
from edgefarm.nats.claims import user_claims
from edgefarm.vault import TransitKey, Vault
from reconciler.concurrency import together
from reconciler.context import VaultCalls

#: How long the reconciler's own NATS users are valid; they are made anew at each login.
_USER_LIFETIME: Final = timedelta(hours=1)
#: The bootstrap has put the first version of this key into the system account, for good.
_SYSTEM_KEY_VERSION: Final = 1
#: An account's identity is the first version of its key, for good.
_IDENTITY_VERSION: Final = 1


@dataclass(frozen=True)
class Signer:
    """A scoped key of an account (`A…`), and the version of it that signs."""

    account: str
    key: TransitKey
    version: int

    @property
    def issuer(self) -> str:
        """Public key of the version that signs."""
        return nkeys.encode_public(nkeys.Prefix.ACCOUNT, self.key.versions[self.version].public_key)


@dataclass(frozen=True)
class Term:
    """Whose user it is, for logs of servers, and for how long from `now`."""

    name: str
    now: datetime
    lifetime: timedelta


async def system_user(vault: VaultCalls, now: datetime) -> tuple[str, str]:
    """A new user of the system account, as JWT and seed: signed by Vault with the reconciler's own scoped key.

    Raises NatsUnavailable while the system account has not been set up.
    """
    operator = await vault.call(Vault.read_document, names.OPERATOR_DOCUMENT)
    key = await vault.call(Vault.key, names.SYSTEM_CONTROLLER_KEY)
    if operator is None or key is None:
        raise NatsUnavailable(
            "NATS cannot be used yet: Vault holds no operator. Run `python -m reconciler bootstrap` once."
        )
    return await sign_user(vault, Signer(operator["systemAccount"], key, _SYSTEM_KEY_VERSION), _own(now))


async def network_user(vault: VaultCalls, network: str, now: datetime) -> tuple[str, str]:
    """A new user of a network's account that may manage its streams, as JWT and seed, made in the same way.

    Raises NatsUnavailable while the network has no account.
    """
    return await sign_user(vault, await network_signer(vault, network, names.controller_key(network)), _own(now))


async def agents_user(vault: VaultCalls, now: datetime) -> tuple[str, str]:
    """A new user of the agents' account that may speak to all of them, as JWT and seed, made in the same way.

    Raises NatsUnavailable while there is no such account.
    """
    signer = await _signer(vault, names.AGENTS_ACCOUNT_KEY, names.AGENTS_CONTROLLER_KEY)
    if signer is None:
        raise NatsUnavailable("The agents of edge hosts have no account in NATS yet.")
    return await sign_user(vault, signer, _own(now))


async def network_signer(vault: VaultCalls, network: str, transit_key: str) -> Signer:
    """The latest version of a scoped key of a network's account. NatsUnavailable while there is none."""
    signer = await _signer(vault, names.account_key(network), transit_key)
    if signer is None:
        raise NatsUnavailable(f"The network {network} has no account in NATS yet.")
    return signer


async def _signer(vault: VaultCalls, account_key: str, transit_key: str) -> Signer | None:
    account, key = await together(vault.call(Vault.key, account_key), vault.call(Vault.key, transit_key))
    if account is None or key is None:
        return None
    public = nkeys.encode_public(nkeys.Prefix.ACCOUNT, account.versions[_IDENTITY_VERSION].public_key)
    return Signer(public, key, max(key.versions))


async def sign_user(vault: VaultCalls, signer: Signer, term: Term) -> tuple[str, str]:
    """A new user, as JWT and seed."""
    user = nkeys.generate_user()
    claims = user_claims(
        name=term.name,
        subject=user.public,
        issuer=signer.issuer,
        account=signer.account,
        jti=secrets.token_hex(16),
        issued_at=int(term.now.timestamp()),
        expires_at=int((term.now + term.lifetime).timestamp()),
    )
    data = jwt.signing_input(claims)
    signature = await vault.call(Vault.sign, signer.key.name, signer.version, data)
    return jwt.assemble(data, signature), user.seed


def _own(now: datetime) -> Term:
    return Term("edgefarm-network-reconciler", now, _USER_LIFETIME)
