"""Compares what NATS and Vault hold for one network with what they shall hold, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgefarm.api.network import Network
from reconciler.configuration import Configuration
from reconciler.context import Context
from reconciler.controllers.account_storage import AccountStorage
from reconciler.controllers.accounts import Accounts
from reconciler.controllers.cluster_objects import ClusterObjects
from reconciler.controllers.convergence import key_schedule, wanted_grants
from reconciler.controllers.directory import Directory
from reconciler.controllers.leaf_objects import LeafObjects
from reconciler.controllers.scope_keys import IDENTITY_VERSION, KeysDue, ScopeKey, present_key
from reconciler.controllers.vault_objects import AccountVault, Territory, VaultListings
from reconciler.desired.account import Comparison, account_public
from reconciler.desired.blueprint import Blueprint, plan_network
from reconciler.desired.grants import Grant, VaultGrants
from reconciler.desired.reservation import Reservation
from reconciler.desired.scopes import scopes_of
from reconciler.ports import Object


@dataclass(frozen=True)
class Holdings:
    """What Vault holds for a network. `account` is the account's public key, None while its key is missing; `keys` are
    those that are there, and `missing_keys` the names of those that are not."""

    account: str | None
    keys: tuple[ScopeKey, ...]
    missing_keys: tuple[str, ...]
    grants: VaultGrants


@dataclass(frozen=True)
class AccountLook:
    """How the account on the servers differs from what it shall be, and the names of all servers that were asked."""

    comparison: Comparison
    servers: tuple[str, ...]


class Inspector:
    """Looks at one network after the other, with the eyes of the Network controller."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._cluster = ClusterObjects(context, self._directory)
        self._leafs = LeafObjects(context)
        self._accounts = Accounts(context)
        self._storage = AccountStorage(context)
        self._listings = VaultListings(context.vault)

    def blueprint(self, obj: Object, network: Network, configuration: Configuration) -> Blueprint:
        """What the network shall be in NATS and Vault now."""
        has_leafs = bool(configuration.nats.leaf_urls and self._directory.has_edges(network.name))
        entry = self._leafs.known(obj["metadata"]["name"]) if has_leafs else None
        around = self._cluster.around(network, self._cluster.members(network), entry)
        return plan_network(network, around, configuration, self._context.clock()).blueprint

    async def holdings(self, blueprint: Blueprint) -> Holdings:
        """Read Vault. Raises VaultUnavailable and VaultRefused."""
        found = await AccountVault(self._context.vault, self._listings, Territory.of_network(blueprint.name)).read()
        scopes = scopes_of(blueprint)
        due = KeysDue(key_schedule(blueprint), self._context.clock)
        identity = found.account.versions.get(IDENTITY_VERSION) if found.account is not None else None
        return Holdings(
            account=account_public(identity.public_key) if identity is not None else None,
            keys=tuple(present_key(scope, found.keys[scope.key], due) for scope in scopes if scope.key in found.keys),
            missing_keys=tuple(scope.key for scope in scopes if scope.key not in found.keys),
            grants=found.grants,
        )

    async def account(self, blueprint: Blueprint, account: str, holdings: Holdings) -> AccountLook:
        """Ask the servers. Raises NatsUnavailable, and what Vault raises."""
        keys = [entry for key in holdings.keys for entry in key.claims()]
        return AccountLook(*await self._accounts.compared(blueprint, account, keys))

    async def grants(self, blueprint: Blueprint, account: str, holdings: Holdings) -> Mapping[str, Grant]:
        """What Vault shall hold for those whose keys are there, by the names of their roles. Raises what Vault raises,
        and NatsUnavailable while there is no operator."""
        wanted = await wanted_grants(blueprint, account, holdings.keys, self._accounts)
        return {grant.role.name: grant for grant in wanted}

    async def reservation(self, blueprint: Blueprint) -> Reservation | None:
        """Whether JetStream serves the network; None where nothing may be stored."""
        return await self._storage.reservation(blueprint.name, blueprint.limits)
