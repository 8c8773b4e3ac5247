"""Brings NATS and Vault to what one network's blueprint says, and removes what belongs to a network, in safe order.

Who may sign less comes first, then what the servers accept, then what lets somebody sign more: so no order of failures
leaves a credential valid that should not be, and documents never name a key that the servers do not know yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefarm import names
from edgefarm.nats.claims import ScopedKey
from edgefarm.vault import TransitKey
from reconciler.concurrency import all_of, together
from reconciler.context import Context
from reconciler.controllers.account_storage import AccountStorage
from reconciler.controllers.accounts import Accounts
from reconciler.controllers.vault_objects import NetworkVault, VaultListings, VaultObjects
from reconciler.desired.account import Comparison, account_public
from reconciler.desired.blueprint import Blueprint
from reconciler.desired.conditions import Converged
from reconciler.desired.grants import (
    AccessTimes,
    Grant,
    GrantMaker,
    GrantWrites,
    SigningKey,
    departures,
    grant_writes,
    orphaned_keys,
)
from reconciler.desired.keys import KeySchedule, plan_key
from reconciler.desired.leafs import leaf_grant
from reconciler.desired.scopes import Scope, policy_scope_key, scopes_of

#: An account is known to servers by its public key, so the first version counts, whatever somebody adds to the key.
_IDENTITY_VERSION: Final = 1


@dataclass(frozen=True)
class _ScopeKey:
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
        return SigningKey(self.key.name, self.key.latest_version, account_public(self.key.latest.public_key))


class Convergence:
    """NATS and Vault as seen by one network after the other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accounts = Accounts(context)
        self._storage = AccountStorage(context)
        self._listings = VaultListings(context.vault)

    async def converge(
        self, blueprint: Blueprint, account_before: str | None, *, reserve_again: bool = False
    ) -> Converged:
        """Do what is missing, and nothing when nothing is. `account_before` is the account that was found last; with
        `reserve_again` the hub is made to try again to set its storage aside.

        May stop anywhere with VaultUnavailable, VaultRefused, NatsUnavailable or NatsRefused; the next call goes on.
        """
        vault = NetworkVault(self._context.vault, self._listings, blueprint.name)
        found = await vault.read()
        scopes = scopes_of(blueprint)
        in_use = {holder.path: scope.key for scope in scopes for holder in scope.holders}
        leaving = departures(found.grants, in_use, found.keys)
        await vault.revoke(leaving.roles)
        identity, keys = await self._ensure_keys(vault, blueprint, scopes, found, frozenset(leaving.keys))
        account = account_public(identity.versions[_IDENTITY_VERSION].public_key)
        scoped = [entry for key in keys for entry in key.claims()]
        before, servers = await self._accounts.ensure(blueprint, account, scoped, anew=reserve_again)
        grants = await self._grants(blueprint, account, keys)
        writes = grant_writes(grants, found.grants.without(leaving.roles))
        await vault.write_grants(writes)
        # Keys before documents: a Policy made again under an old name must find that the key has served others.
        await vault.delete_keys(orphaned_keys(blueprint.name, found.keys, (scope.key for scope in scopes)))
        await vault.delete_documents(leaving.documents)
        if account_before is not None and account_before != account:
            await self._accounts.delete([account_before])
        signing = {key.key.name: key.signing() for key in keys}
        return Converged(
            account=account,
            servers=tuple(servers),
            keys={(m.namespace, m.policy): signing[policy_scope_key(blueprint, m)] for m in blueprint.members},
            grants=len(grants),
            look_again=min((key.look_again for key in keys if key.look_again is not None), default=None),
            reservation=await self._storage.reservation(blueprint.name, blueprint.limits),
            mended=_mended(found, before, writes, scopes),
        )

    async def push_again(self, account: str) -> None:
        """Have leafs that were away told what the account is now. AccountNotStored when it has to be looked into."""
        await self._accounts.push_again(account)

    async def _grants(self, blueprint: Blueprint, account: str, keys: Sequence[_ScopeKey]) -> list[Grant]:
        leaf = blueprint.entry.members() if blueprint.entry else {"leaf": []}
        make = GrantMaker(account, blueprint.credentials, blueprint.configuration, leaf)
        grants = []
        for key in keys:
            for holder in key.scope.holders:
                grant = make.grant(holder, key.signing())
                if key.scope.storage is not None:
                    system = await self._accounts.system_access()
                    grant = leaf_grant(grant, blueprint.configuration, system, key.scope.storage)
                grants.append(grant)
        return grants

    async def remove(self, network: str, account_before: str | None, *, reserved: bool) -> None:
        """Remove what the account stores, the account from the servers, then roles, policies, documents and keys; the
        account's key last, because it tells an interrupted removal which account it was. `reserved`: whether the hub
        has set storage aside, so that there may be something in it."""
        vault = NetworkVault(self._context.vault, self._listings, network)
        found = await vault.read()
        accounts = {account_before} if account_before else set()
        if found.account is not None:
            account = account_public(found.account.versions[_IDENTITY_VERSION].public_key)
            accounts.add(account)
            if _lets_us_in(await self._accounts.stored(account), found.keys.get(names.controller_key(network))):
                await self._storage.delete(network, account, reserved=reserved)
        await self._accounts.delete(accounts)
        await vault.revoke(found.grants.role_names())
        await vault.delete_documents(found.grants.documents)
        await vault.delete_keys(found.keys)
        if found.account is not None:
            await vault.delete_keys([found.account.name])

    async def _ensure_keys(
        self,
        vault: NetworkVault,
        blueprint: Blueprint,
        scopes: Sequence[Scope],
        found: VaultObjects,
        replace: frozenset[str],
    ) -> tuple[TransitKey, list[_ScopeKey]]:
        schedule = _schedule(blueprint)

        async def identity() -> TransitKey:
            return found.account or await vault.create_account_key()

        async def scoped() -> list[_ScopeKey]:
            return await all_of([self._ensure_key(vault, scope, schedule, found, replace) for scope in scopes])

        return await together(identity(), scoped())

    async def _ensure_key(
        self, vault: NetworkVault, scope: Scope, schedule: KeySchedule, found: VaultObjects, replace: frozenset[str]
    ) -> _ScopeKey:
        if scope.key in replace:
            key = await vault.replace_key(scope.key)
        else:
            key = found.keys.get(scope.key) or await vault.create_key(scope.key)
        if scope.orders is None:
            return _ScopeKey(scope, key, tuple(key.versions), None)
        now = self._context.clock()
        plan = plan_key(key, scope.orders, schedule, now)
        if plan.rotate:
            key = await vault.rotate_key(scope.key)
            plan = plan_key(key, scope.orders, schedule, now)
        return _ScopeKey(scope, key, plan.active, plan.look_again)


def _lets_us_in(account: Mapping[str, Any] | None, key: TransitKey | None) -> bool:
    """Whether an account has JetStream and knows the latest version of our own key."""
    if account is None or key is None:
        return False
    claims = account["nats"]
    publics = {entry.get("key") for entry in claims.get("signing_keys", ()) if isinstance(entry, Mapping)}
    has_jetstream = any(claims["limits"].get(name) for name in ("mem_storage", "disk_storage"))
    return has_jetstream and account_public(key.latest.public_key) in publics


def _schedule(blueprint: Blueprint) -> KeySchedule:
    """The cluster's schedule; a network whose credentials live longer gets as long an overlap."""
    keys = blueprint.configuration.keys
    lifetime = AccessTimes.of(blueprint.credentials, blueprint.configuration).lifetime
    return KeySchedule(keys.rotate_every, max(keys.overlap, lifetime))


def _mended(found: VaultObjects, before: Comparison, writes: GrantWrites, scopes: Sequence[Scope]) -> tuple[str, ...]:
    """What a network that was in order should not have needed; leafs that are new have not lost anything."""
    known = [scope for scope in scopes if scope.storage is None or _has_traces(scope, found)]
    roles = {holder.role for scope in known for holder in scope.holders}
    policies = {names.vault_policy(role) for role in roles}
    paths = {holder.path for scope in known for holder in scope.holders}
    return (
        *(f"account missing on NATS server {server}" for server in before.missing),
        *(f"key {name} missing" for name in sorted({scope.key for scope in known} - found.keys.keys())),
        *(f"Vault policy {name} missing or changed" for name in writes.policies if name in policies),
        *(f"role {role.name} missing or changed" for role in writes.roles if role.name in roles),
        *(f"document {path} missing" for path in writes.documents if path in paths - found.grants.documents.keys()),
    )


def _has_traces(scope: Scope, found: VaultObjects) -> bool:
    """Whether any of its holders has had a grant."""
    roles = found.grants.role_names()
    return any(holder.role in roles or holder.path in found.grants.documents for holder in scope.holders)
