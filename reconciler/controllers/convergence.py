"""Brings NATS and Vault to what one network's blueprint says, and removes what belongs to a network, in safe order.

Who may sign less comes first, then what the servers accept, then what lets somebody sign more: so no order of failures
leaves a credential valid that should not be, and documents never name a key that the servers do not know yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgefarm import names
from edgefarm.nats.claims import ScopedKey
from edgefarm.vault import TransitKey
from reconciler.concurrency import all_of, together
from reconciler.context import Context
from reconciler.controllers.accounts import Accounts
from reconciler.controllers.vault_objects import NetworkVault, VaultListings, VaultObjects
from reconciler.desired.account import Comparison, account_public, scoped_keys
from reconciler.desired.blueprint import Blueprint, Member
from reconciler.desired.conditions import Converged
from reconciler.desired.grants import (
    AccessTimes,
    GrantMaker,
    GrantWrites,
    SigningKey,
    departures,
    grant_writes,
    orphaned_keys,
)
from reconciler.desired.keys import KeyPlan, KeySchedule, plan_key

#: An account is known to servers by its public key, so the first version counts, whatever somebody adds to the key.
_IDENTITY_VERSION: Final = 1


@dataclass(frozen=True)
class _MemberKey:
    """One Policy's key after it was made or rotated, and which versions of it are valid."""

    member: Member
    key: TransitKey
    plan: KeyPlan

    def publics(self) -> list[str]:
        # The latest version signs, even if a clock of Vault that is behind ours dates it before a revocation.
        valid = sorted({*self.plan.active, self.key.latest_version})
        return [account_public(self.key.versions[version].public_key) for version in valid]

    def scoped(self) -> list[ScopedKey]:
        return scoped_keys(f"{self.member.namespace}.{self.member.policy}", self.member.permissions, self.publics())

    def signing(self) -> SigningKey:
        return SigningKey(self.key.name, self.key.latest_version, account_public(self.key.latest.public_key))


class Convergence:
    """NATS and Vault as seen by one network after the other."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accounts = Accounts(context)
        self._listings = VaultListings(context.vault)

    async def converge(self, blueprint: Blueprint, account_before: str | None) -> Converged:
        """Do what is missing, and nothing when nothing is. `account_before` is the account that was found last.

        May stop anywhere with VaultUnavailable, VaultRefused, NatsUnavailable or NatsRefused; the next call goes on.
        """
        vault = NetworkVault(self._context.vault, self._listings, blueprint.name)
        found = await vault.read()
        key_of = {member: _key_name(blueprint, member) for member in blueprint.members}
        in_use = {holder.path: key_of[member] for member in blueprint.members for holder in blueprint.holders(member)}
        leaving = departures(found.grants, in_use, found.keys)
        await vault.revoke(leaving.roles)
        identity, keys = await self._ensure_keys(vault, blueprint, found, frozenset(leaving.keys))
        account = account_public(identity.versions[_IDENTITY_VERSION].public_key)
        scoped = [entry for key in keys for entry in key.scoped()]
        before, servers = await self._accounts.ensure(blueprint, account, scoped)
        make = GrantMaker(account, blueprint.credentials, blueprint.configuration)
        grants = [make.grant(holder, key.signing()) for key in keys for holder in blueprint.holders(key.member)]
        writes = grant_writes(grants, found.grants.without(leaving.roles))
        await vault.write_grants(writes)
        # Keys before documents: a Policy made again under an old name must find that the key has served others.
        await vault.delete_keys(orphaned_keys(blueprint.name, found.keys, key_of.values()))
        await vault.delete_documents(leaving.documents)
        if account_before is not None and account_before != account:
            await self._accounts.delete([account_before])
        return Converged(
            account=account,
            servers=tuple(servers),
            keys={(key.member.namespace, key.member.policy): key.signing() for key in keys},
            grants=len(grants),
            look_again=min((key.plan.look_again for key in keys), default=None),
            mended=_mended(found, before, writes, key_of),
        )

    async def remove(self, network: str, account_before: str | None) -> None:
        """Remove the account from the servers, then roles, policies, documents and keys; the account's key last,
        because it tells an interrupted removal which account it was."""
        vault = NetworkVault(self._context.vault, self._listings, network)
        found = await vault.read()
        accounts = {account_before} if account_before else set()
        if found.account is not None:
            accounts.add(account_public(found.account.versions[_IDENTITY_VERSION].public_key))
        await self._accounts.delete(accounts)
        await vault.revoke(found.grants.role_names())
        await vault.delete_documents(found.grants.documents)
        await vault.delete_keys(found.keys)
        if found.account is not None:
            await vault.delete_keys([found.account.name])

    async def _ensure_keys(
        self, vault: NetworkVault, blueprint: Blueprint, found: VaultObjects, replace: frozenset[str]
    ) -> tuple[TransitKey, list[_MemberKey]]:
        async def identity() -> TransitKey:
            return found.account or await vault.create_account_key()

        async def members() -> list[_MemberKey]:
            return await all_of(
                [self._ensure_key(vault, blueprint, member, found, replace) for member in blueprint.members]
            )

        return await together(identity(), members())

    async def _ensure_key(
        self, vault: NetworkVault, blueprint: Blueprint, member: Member, found: VaultObjects, replace: frozenset[str]
    ) -> _MemberKey:
        name = _key_name(blueprint, member)
        now, schedule = self._context.clock(), _schedule(blueprint)
        if name in replace:
            key = await vault.replace_key(name)
        else:
            key = found.keys.get(name) or await vault.create_key(name)
        plan = plan_key(key, member.orders, schedule, now)
        if plan.rotate:
            key = await vault.rotate_key(name)
            plan = plan_key(key, member.orders, schedule, now)
        return _MemberKey(member, key, plan)


def _key_name(blueprint: Blueprint, member: Member) -> str:
    return names.policy_key(blueprint.name, member.namespace, member.policy)


def _schedule(blueprint: Blueprint) -> KeySchedule:
    """The cluster's schedule; a network whose credentials live longer gets as long an overlap."""
    keys = blueprint.configuration.keys
    lifetime = AccessTimes.of(blueprint.credentials, blueprint.configuration).lifetime
    return KeySchedule(keys.rotate_every, max(keys.overlap, lifetime))


def _mended(
    found: VaultObjects, before: Comparison, writes: GrantWrites, key_of: Mapping[Member, str]
) -> tuple[str, ...]:
    """What a network that was in order should not have needed."""
    return (
        *(f"account missing on NATS server {server}" for server in before.missing),
        *(f"key {name} missing" for name in sorted(set(key_of.values()) - found.keys.keys())),
        *(f"Vault policy {name} missing or changed" for name in writes.policies),
        *(f"role {role.name} missing or changed" for role in writes.roles),
        *(f"document {path} missing" for path in writes.documents if path not in found.grants.documents),
    )
