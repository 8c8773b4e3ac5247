"""Owns NATS accounts on the servers: signs them with Vault, pushes them, reads them back, deletes them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import AccountNotStored, NatsUnavailable
from edgefarm.nats import jwt
from edgefarm.nats.claims import ScopedKey, delete_claims
from edgefarm.vault import Vault
from reconciler.configuration import VaultConfiguration
from reconciler.context import Context
from reconciler.desired.account import (
    Accountable,
    Comparison,
    Envelope,
    account_public,
    claims_of,
    compare,
    next_issued_at,
)
from reconciler.desired.grants import SigningKey
from reconciler.desired.leafs import SystemAccess

#: The key that signs, and the version of it that servers know.
_ISSUER: Final = names.OPERATOR_SIGNING_KEYS[0]
_ISSUER_VERSION: Final = 1
#: The bootstrap has put the first version of the leafs' key into the system account, for good.
_SYSTEM_KEY_VERSION: Final = 1
#: Seconds that servers may take to store what they were sent.
_PATIENCE: Final = 5.0
_INTERVAL: Final = 0.05


@dataclass(frozen=True)
class _Operator:
    """Public facts of the operator (the KV document), and the Vault they were read from."""

    vault: VaultConfiguration | None
    signing_keys: tuple[str, ...]
    document: Mapping[str, Any]

    @property
    def issuer(self) -> str:
        return self.signing_keys[0]


@dataclass(frozen=True)
class _Look:
    """What an account shall say, whose signature counts, and how the servers' answers compare with that."""

    wanted: Mapping[str, Any]
    trusted: tuple[str, ...]
    found: Comparison
    servers: tuple[str, ...]


class Accounts:
    """The accounts of all networks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: _Operator | None = None
        self._leaf_key: tuple[VaultConfiguration | None, SigningKey] | None = None

    async def ensure(
        self, network: Accountable, account: str, keys: Sequence[ScopedKey], *, anew: bool = False
    ) -> tuple[Comparison, list[str]]:
        """Make all servers hold the account exactly so; return how it was before, and the servers' names. With `anew`
        it is issued anew even if it is so already: servers act upon a JWT that is new to them only.

        Raises AccountNotStored when a server goes on holding something else, NatsUnavailable, NatsRefused, and what
        Vault raises.
        """
        look = await self._look(network, account, keys)
        if anew or not look.found.equal:
            issued_at = next_issued_at(self._context.clock(), look.found.newest_issued_at)
            token = await self._sign({**look.wanted, "iat": issued_at})
            await self._context.nats().push(token)
            await self._read_back(account, look.wanted, look.trusted)
        return look.found, list(look.servers)

    async def compared(
        self, network: Accountable, account: str, keys: Sequence[ScopedKey]
    ) -> tuple[Comparison, tuple[str, ...]]:
        """How what the servers hold differs from what they shall hold, and their names; nothing is changed. Raises what
        `ensure` raises."""
        look = await self._look(network, account, keys)
        return look.found, look.servers

    async def _look(self, network: Accountable, account: str, keys: Sequence[ScopedKey]) -> _Look:
        operator = await self._operator()
        wanted = claims_of(network, account, keys, Envelope(operator.issuer, secrets.token_hex(16), 0))
        answers = await self._context.nats().lookup(account)
        found = compare(answers, wanted, operator.signing_keys)
        return _Look(wanted, operator.signing_keys, found, tuple(sorted({answer.server for answer in answers})))

    async def stored(self, account: str) -> Mapping[str, Any] | None:
        """What the servers hold under the account, if any of them does."""
        tokens = [answer.jwt for answer in await self._context.nats().lookup(account) if answer.jwt is not None]
        return jwt.decode(tokens[0]) if tokens else None

    async def push_again(self, account: str) -> None:
        """Send the account once more as it is stored, for leafs that were away.

        Raises AccountNotStored when the servers do not agree what it is.
        """
        stored = {answer.jwt for answer in await self._context.nats().lookup(account)}
        token = stored.pop() if len(stored) == 1 else None
        if token is None:
            raise AccountNotStored(f"The NATS servers do not agree about the account {account}.")
        await self._context.nats().push(token)

    async def system_access(self) -> SystemAccess:
        """What leafs are told of the system account. NatsUnavailable while there is no key for them."""
        operator = await self._operator()
        if self._leaf_key is None or self._leaf_key[0] != operator.vault:
            key = await self._context.vault.call(Vault.key, names.SYSTEM_LEAF_KEY)
            if key is None:
                raise NatsUnavailable(
                    "Vault holds no key for leafs yet: run `python -m reconciler bootstrap` once more."
                )
            version = key.versions[_SYSTEM_KEY_VERSION]
            signing = SigningKey(key.name, _SYSTEM_KEY_VERSION, account_public(version.public_key))
            self._leaf_key = (operator.vault, signing)
        return SystemAccess(
            account=operator.document["systemAccount"],
            key=self._leaf_key[1],
            operator_jwt=operator.document["operatorJwt"],
            system_account_jwt=operator.document["systemAccountJwt"],
        )

    async def delete(self, accounts: Collection[str]) -> None:
        """Remove accounts from all servers and see that they are gone; absent ones are fine."""
        present = [account for account in sorted(accounts) if await self._holders(account)]
        if not present:
            return
        operator = await self._operator()
        claims = delete_claims(
            accounts=present,
            issuer=operator.issuer,
            jti=secrets.token_hex(16),
            issued_at=int(self._context.clock().timestamp()),
        )
        await self._context.nats().delete(await self._sign(claims))
        deadline = _now() + _PATIENCE
        for account in present:
            while holders := await self._holders(account):
                if _now() > deadline:
                    raise AccountNotStored(f"The account {account} was deleted, but is still held by {_join(holders)}.")
                await asyncio.sleep(_INTERVAL)

    async def _read_back(self, account: str, wanted: Mapping[str, Any], trusted: Collection[str]) -> None:
        deadline = _now() + _PATIENCE
        while True:
            stored = compare(await self._context.nats().lookup(account), wanted, trusted)
            if stored.equal:
                return
            if _now() > deadline:
                self._known = None  # perhaps it is we who have an outdated idea of the operator
                wrong = _join([*stored.missing, *stored.differing])
                raise AccountNotStored(f"The account was pushed, but what NATS server {wrong} holds is something else.")
            await asyncio.sleep(_INTERVAL)

    async def _holders(self, account: str) -> list[str]:
        return [answer.server for answer in await self._context.nats().lookup(account) if answer.jwt is not None]

    async def _sign(self, claims: Mapping[str, Any]) -> str:
        payload = jwt.signing_input(claims)
        return jwt.assemble(payload, await self._context.vault.call(Vault.sign, _ISSUER, _ISSUER_VERSION, payload))

    async def _operator(self) -> _Operator:
        """The operator's public keys, which never change, so they are read once from each Vault."""
        configuration = self._context.configuration()
        vault = configuration.vault if configuration else None
        if self._known is None or self._known.vault != vault:
            document = await self._context.vault.call(Vault.read_document, names.OPERATOR_DOCUMENT)
            if not document or not document.get("signingKeys"):
                raise NatsUnavailable("Vault holds no operator yet: run `python -m reconciler bootstrap` once.")
            self._known = _Operator(vault, tuple(document["signingKeys"]), document)
        return self._known


def _now() -> float:
    return asyncio.get_running_loop().time()


def _join(servers: Sequence[str]) -> str:
    return ", ".join(servers)
