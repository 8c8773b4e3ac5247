"""Reads and writes what Vault holds for one account: transit keys, roles, policies, access documents. No decisions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from edgefarm import names
from edgefarm.vault import TransitKey, Vault
from reconciler.concurrency import NextRound, all_of, together
from reconciler.context import VaultCalls
from reconciler.desired.grants import GrantWrites, VaultGrants

T = TypeVar("T")


@dataclass(frozen=True)
class Territory:
    """Which names in Vault belong to one account: its identity key, its other keys by name and by prefix, the prefix
    of its roles, and the folder of its documents."""

    account: str
    keys: tuple[str, ...]
    key_prefixes: tuple[str, ...]
    role_prefix: str
    folder: str

    @classmethod
    def of_network(cls, network: str) -> Territory:
        """What belongs to a network."""
        return cls(
            account=names.account_key(network),
            keys=(names.controller_key(network), names.nack_key(network)),
            key_prefixes=(names.policy_key_prefix(network), names.leaf_key_prefix(network)),
            role_prefix=names.grant_role_prefix(network),
            folder=names.access_document_prefix(network),
        )

    def has_key(self, name: str) -> bool:
        """Whether this transit key belongs to it."""
        return name == self.account or name in self.keys or name.startswith(self.key_prefixes)


@dataclass(frozen=True)
class VaultNames:
    """What there is for an account, by name. `policies` are Vault policies, `documents` full paths."""

    keys: tuple[str, ...]
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    documents: tuple[str, ...]


@dataclass(frozen=True)
class VaultObjects:
    """The same with content; `account` is the account's identity key."""

    account: TransitKey | None
    keys: Mapping[str, TransitKey]
    grants: VaultGrants


class VaultListings:
    """Lists of names in Vault, which hold those of all accounts: passes that run at the same time share one request."""

    def __init__(self, vault: VaultCalls) -> None:
        self.keys = NextRound(lambda: vault.call(Vault.keys))
        self.roles = NextRound(lambda: vault.call(Vault.roles))
        self.policies = NextRound(lambda: vault.call(Vault.policies))


class AccountVault:
    """The part of Vault that belongs to one account. Independent requests run at the same time."""

    def __init__(self, vault: VaultCalls, listings: VaultListings, territory: Territory) -> None:
        self._vault = vault
        self._listings = listings
        self._territory = territory

    async def names(self) -> VaultNames:
        """List everything."""
        keys, roles, policies, documents = await together(
            self._listings.keys.get(),
            self._listings.roles.get(),
            self._listings.policies.get(),
            self._vault.call(Vault.list_documents, self._territory.folder),
        )
        role_prefix = self._territory.role_prefix
        return VaultNames(
            keys=tuple(filter(self._territory.has_key, keys)),
            roles=tuple(name for name in roles if name.startswith(role_prefix)),
            policies=tuple(name for name in policies if name.startswith(names.vault_policy(role_prefix))),
            documents=tuple(documents),
        )

    async def read(self) -> VaultObjects:
        """Everything, with content."""
        found = await self.names()
        keys, roles, policies, documents = await together(
            self._each(found.keys, lambda name: self._vault.call(Vault.key, name)),
            self._each(found.roles, lambda name: self._vault.call(Vault.role, name)),
            self._each(found.policies, lambda name: self._vault.call(Vault.policy, name)),
            self._each(found.documents, lambda path: self._vault.call(Vault.read_document, path)),
        )
        account = keys.pop(self._territory.account, None)
        return VaultObjects(account, keys, VaultGrants(roles, policies, documents))

    async def create_account_key(self) -> TransitKey:
        """Make the account's identity."""
        return await self._vault.call(Vault.create_key, self._territory.account)

    async def create_key(self, name: str) -> TransitKey:
        """Make a scoped key."""
        return await self._vault.call(Vault.create_key, name)

    async def replace_key(self, name: str) -> TransitKey:
        """Make a scoped key anew: nothing that the old one signed is worth anything once the account has the new."""
        await self._vault.call(Vault.delete_key, name)
        return await self._vault.call(Vault.create_key, name)

    async def rotate_key(self, name: str) -> TransitKey:
        """Add a version to a scoped key."""
        return await self._vault.call(Vault.rotate_key, name)

    async def revoke(self, roles: Iterable[str]) -> None:
        """End what grants allow: first what tokens in use may do, then that there are new ones."""
        wanted = list(roles)
        await all_of([self._vault.call(Vault.delete_policy, names.vault_policy(role)) for role in wanted])
        await all_of([self._vault.call(Vault.delete_role, role) for role in wanted])

    async def write_grants(self, writes: GrantWrites) -> None:
        """Bring documents, policies and roles into their wanted state.

        Documents come first: they tell a later pass whose key has to be replaced when somebody leaves, so there must be
        one before anything can be signed.
        """
        await all_of([self._vault.call(Vault.write_document, path, data) for path, data in writes.documents.items()])
        await all_of(
            [
                *(self._vault.call(Vault.write_policy, name, text) for name, text in writes.policies.items()),
                *(self._vault.call(Vault.write_role, role) for role in writes.roles),
            ]
        )

    async def delete_documents(self, paths: Iterable[str]) -> None:
        """Delete access documents."""
        await all_of([self._vault.call(Vault.delete_document, path) for path in paths])

    async def delete_keys(self, keys: Iterable[str]) -> None:
        """Delete transit keys for good."""
        await all_of([self._vault.call(Vault.delete_key, name) for name in keys])

    async def _each(self, found: Iterable[str], read: Callable[[str], Awaitable[T | None]]) -> dict[str, T]:
        wanted = list(found)
        values = await all_of([read(name) for name in wanted])
        # What was deleted between listing and reading is simply not there.
        return {name: value for name, value in zip(wanted, values, strict=True) if value is not None}
