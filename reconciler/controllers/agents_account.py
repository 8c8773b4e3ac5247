"""The controller of the account AGENTS: made while the mesh is enabled, kept from drift, removed when it is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from edgefarm import names
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result
from reconciler.controllers.accounts import Accounts
from reconciler.controllers.scope_keys import IDENTITY_VERSION, KeysDue, ensure_keys
from reconciler.controllers.vault_objects import AccountVault, Territory, VaultListings
from reconciler.desired.account import account_public
from reconciler.desired.agents import (
    AgentsAccount,
    accounts_named,
    agent_grants,
    find_strays,
    scopes_in,
)
from reconciler.desired.grants import grant_writes
from reconciler.desired.keys import KeySchedule

#: Everything in Vault that is the agents'. No name of a network fits in here, nor the other way round.
TERRITORY: Final = Territory(
    account=names.AGENTS_ACCOUNT_KEY,
    keys=(names.AGENTS_CONTROLLER_KEY, names.AGENTS_KEY),
    key_prefixes=(),
    role_prefix=names.AGENT_ROLE_PREFIX,
    folder=names.AGENT_ACCESS_FOLDER,
)
_SOONEST: Final = timedelta(seconds=1)


class AgentsAccountController:
    """Account, keys and grants of the agents, as one root that always exists."""

    name = "agents"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._accounts = Accounts(context)
        self._listings = VaultListings(context.vault)
        #: The only root there is.
        self.key = Key(self.name, context.settings.namespace, names.AGENTS_ACCOUNT)

    async def reconcile(self, key: Key) -> Result:
        """One pass; a second one writes nothing. May stop anywhere with what Vault and NATS raise; the next goes on."""
        configuration = self._context.configuration()
        if configuration is None:
            return Result()
        vault = AccountVault(self._context.vault, self._listings, TERRITORY)
        if configuration.mesh.enabled:
            return await self._ensure(vault, key.namespace, configuration)
        await self._remove(vault)
        return Result()

    async def _ensure(self, vault: AccountVault, namespace: str, configuration: Configuration) -> Result:
        """Who may sign less first, then what the servers accept, then who may sign more."""
        found = await vault.read()
        scopes = scopes_in(namespace)
        strays = find_strays(found.grants, scopes[0].holders)
        await vault.revoke(strays.roles)
        schedule = KeySchedule(configuration.keys.rotate_every, configuration.keys.overlap)
        due = KeysDue(schedule, self._context.clock, strays.keys_to_replace)
        identity, keys = await ensure_keys(vault, found, scopes, due)
        account = account_public(identity.versions[IDENTITY_VERSION].public_key)
        before, _ = await self._accounts.ensure(AgentsAccount(), account, [one for key in keys for one in key.claims()])
        grants = agent_grants(account, keys[0].signing(), scopes[0].holders, configuration)
        writes = grant_writes(grants, found.grants.without(strays.roles))
        await self._accounts.delete(accounts_named(found.grants.documents) - {account})
        await vault.write_grants(writes)
        await vault.delete_documents(strays.documents)
        if not before.equal or writes.roles or writes.policies or writes.documents:
            self._context.log.info("the account of the agents was brought up to date", account=account)
        look_again = min((key.look_again for key in keys if key.look_again is not None), default=None)
        return Result(None if look_again is None else max(look_again - self._context.clock(), _SOONEST))

    async def _remove(self, vault: AccountVault) -> None:
        """Grants first, so that nothing new is signed; then connections are cut, then the keys go. Documents last: they
        tell a pass that follows an interrupted one which account it was."""
        found = await vault.read()
        accounts = set(accounts_named(found.grants.documents))
        if found.account is not None:
            accounts.add(account_public(found.account.versions[IDENTITY_VERSION].public_key))
        await vault.revoke(found.grants.role_names())
        await self._accounts.delete(accounts)
        await vault.delete_keys(found.keys)
        if found.account is not None:
            await vault.delete_keys([found.account.name])
        await vault.delete_documents(found.grants.documents)
        if accounts:
            self._context.log.info("the account of the agents was removed", accounts=sorted(accounts))


def build(context: Context) -> Registration:
    """The controller, which nothing in Kubernetes wakes: it looks at the start, at every resync, and when the
    configuration changes."""
    controller = AgentsAccountController(context)
    return Registration(controller, (), always=(controller.key,))
