"""Keeps the transit keys of one account: makes what is missing, and rotates scoped keys when they are due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgefarm.nats.claims import ScopedKey
from edgefarm.vault import TransitKey
from reconciler.concurrency import all_of, together
from reconciler.controllers.vault_objects import AccountVault, VaultObjects
from reconciler.desired.account import account_public
from reconciler.desired.grants import SigningKey
from reconciler.desired.keys import KeySchedule, plan_key
from reconciler.desired.scopes import Scope

#: An account is known to servers by its public key, so the first version counts, whatever somebody adds to the key.
IDENTITY_VERSION: Final = 1


@dataclass(frozen=True)
class ScopeKey:
    """A scope's key after it was made or rotated, which versions of it are valid, and when that changes by itself."""

    scope: Scope
    key: TransitKey
    active: tuple[int, ...]
    look_again: datetime | None

    def claims(self) -> list[ScopedKey]:
        """One entry in the account per valid version."""
        # The latest version signs, even if a clock of Vault that is behind ours dates it before a revocation.
        valid = sorted({*self.active, self.key.latest_version})
        publics = (account_public(self.key.versions[version].public_key) for version in valid)
        return [ScopedKey(public, self.scope.role, self.scope.template) for public in publics]

    def signing(self) -> SigningKey:
        """The version that signs."""
        return SigningKey(self.key.name, self.key.latest_version, account_public(self.key.latest.public_key))


@dataclass(frozen=True)
class KeysDue:
    """When keys rotate by what clock, and the names of those that have to be made anew now."""

    schedule: KeySchedule
    clock: Callable[[], datetime]
    replace: frozenset[str] = frozenset()


async def ensure_keys(
    vault: AccountVault, found: VaultObjects, scopes: Sequence[Scope], due: KeysDue
) -> tuple[TransitKey, list[ScopeKey]]:
    """The account's identity and the keys of its scopes; `found` is what there was. Raises what Vault raises."""

    async def identity() -> TransitKey:
        return found.account or await vault.create_account_key()

    async def scoped() -> list[ScopeKey]:
        return await all_of([_ensure_key(vault, found, scope, due) for scope in scopes])

    return await together(identity(), scoped())


async def _ensure_key(vault: AccountVault, found: VaultObjects, scope: Scope, due: KeysDue) -> ScopeKey:
    if scope.key in due.replace:
        key = await vault.replace_key(scope.key)
    else:
        key = found.keys.get(scope.key) or await vault.create_key(scope.key)
    if scope.orders is not None and plan_key(key, scope.orders, due.schedule, due.clock()).rotate:
        key = await vault.rotate_key(scope.key)
    return present_key(scope, key, due)


def present_key(scope: Scope, key: TransitKey, due: KeysDue) -> ScopeKey:
    """A scope's key as it is, whether or not a rotation is due."""
    if scope.orders is None:
        return ScopeKey(scope, key, tuple(key.versions), None)
    plan = plan_key(key, scope.orders, due.schedule, due.clock())
    return ScopeKey(scope, key, plan.active, plan.look_again)
