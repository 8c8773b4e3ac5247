"""Brings NATS and Vault to what one network's blueprint says, and removes what belongs to a network, in safe order.

Who may sign less comes first, then what the servers accept, then what lets somebody sign more: so no order of failures
leaves a credential valid that should not be, and documents never name a key that the servers do not know yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgefarm import names
from edgefarm.vault import TransitKey
from reconciler.context import Context
from reconciler.controllers.account_storage import AccountStorage
from reconciler.controllers.accounts import Accounts
from reconciler.controllers.scope_keys import IDENTITY_VERSION, KeysDue, ScopeKey, ensure_keys
from reconciler.controllers.vault_objects import AccountVault, Territory, VaultListings, VaultObjects
from reconciler.desired.account import Comparison, account_public
from reconciler.desired.blueprint import Blueprint
from reconciler.desired.conditions import Converged
from reconciler.desired.grants import (
    AccessTimes,
    Grant,
    GrantMaker,
    GrantWrites,
    departures,
    grant_writes,
    orphaned_keys,
)
from reconciler.desired.keys import KeySchedule
from reconciler.desired.leafs import leaf_grant
from reconciler.desired.scopes import Scope, policy_scope_key, scopes_of


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
        vault = AccountVault(self._context.vault, self._listings, Territory.of_network(blueprint.name))
        found = await vault.read()
        scopes = scopes_of(blueprint)
        in_use = {holder.path: scope.key for scope in scopes for holder in scope.holders}
        leaving = departures(found.grants, in_use, found.keys)
        await vault.revoke(leaving.roles)
        due = KeysDue(key_schedule(blueprint), self._context.clock, frozenset(leaving.keys))
        identity, keys = await ensure_keys(vault, found, scopes, due)
        account = account_public(identity.versions[IDENTITY_VERSION].public_key)
        scoped = [entry for key in keys for entry in key.claims()]
        before, servers = await self._accounts.ensure(blueprint, account, scoped, anew=reserve_again)
        grants = await wanted_grants(blueprint, account, keys, self._accounts)
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

    async def remove(self, network: str, account_before: str | None, *, reserved: bool) -> None:
        """Remove what the account stores, the account from the servers, then roles, policies, documents and keys; the
        account's key last, because it tells an interrupted removal which account it was. `reserved`: whether the hub
        has set storage aside, so that there may be something in it."""
        vault = AccountVault(self._context.vault, self._listings, Territory.of_network(network))
        found = await vault.read()
        accounts = {account_before} if account_before else set()
        if found.account is not None:
            account = account_public(found.account.versions[IDENTITY_VERSION].public_key)
            accounts.add(account)
            if _lets_us_in(await self._accounts.stored(account), found.keys.get(names.controller_key(network))):
                await self._storage.delete(network, account, reserved=reserved)
        await self._accounts.delete(accounts)
        await vault.revoke(found.grants.role_names())
        await vault.delete_documents(found.grants.documents)
        await vault.delete_keys(found.keys)
        if found.account is not None:
            await vault.delete_keys([found.account.name])


async def wanted_grants(
    blueprint: Blueprint, account: str, keys: Sequence[ScopeKey], accounts: Accounts
) -> list[Grant]:
    """What Vault shall hold for all holders of the keys. Raises what reading the system account raises, where there are
    leafs."""
    leaf = blueprint.entry.members() if blueprint.entry else {"leaf": []}
    make = GrantMaker(account, blueprint.credentials, blueprint.configuration, leaf)
    grants = []
    for key in keys:
        for holder in key.scope.holders:
            grant = make.grant(holder, key.signing())
            if key.scope.storage is not None:
                system = await accounts.system_access()
                grant = leaf_grant(grant, blueprint.configuration, system, key.scope.storage)
            grants.append(grant)
    return grants


def _lets_us_in(account: Mapping[str, Any] | None, key: TransitKey | None) -> bool:
    """Whether an account has JetStream and knows the latest version of our own key."""
    if account is None or key is None:
        return False
    claims = account["nats"]
    publics = {entry.get("key") for entry in claims.get("signing_keys", ()) if isinstance(entry, Mapping)}
    has_jetstream = any(claims["limits"].get(name) for name in ("mem_storage", "disk_storage"))
    return has_jetstream and account_public(key.latest.public_key) in publics


def key_schedule(blueprint: Blueprint) -> KeySchedule:
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
