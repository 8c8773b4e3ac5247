"""Decides what NATS and Vault hold for the agents of edge hosts: the account AGENTS, its keys, and their grants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgefarm import names
from edgefarm.api.network import CredentialTimes, Limits
from edgefarm.nats.templates import AGENT_TEMPLATE, AGENTS_CONTROLLER_TEMPLATE
from reconciler.configuration import Configuration
from reconciler.desired.grants import Grant, GrantMaker, Holder, SigningKey, VaultGrants
from reconciler.desired.keys import KeyOrders
from reconciler.desired.scopes import Scope


@dataclass(frozen=True)
class AgentsAccount:
    """What the account is made of, as `desired.account.Accountable`: it stores nothing."""

    name: str = names.AGENTS_ACCOUNT
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class AgentHolder(Holder):
    """A service account of agents; `policy` is the role of their devices in the mesh."""

    @property
    def role(self) -> str:
        """Name of the Vault role."""
        return names.agent_role(self.service_account)

    @property
    def path(self) -> str:
        """Path of the access document."""
        return names.agent_access_document(self.namespace, self.service_account)


@dataclass(frozen=True)
class Strays:
    """What Vault holds for agents that are not ours any more, such as those of an earlier controller namespace. What
    they hold is signed by the agents' key, so only a new one ends it."""

    roles: tuple[str, ...]
    documents: tuple[str, ...]

    @property
    def keys_to_replace(self) -> frozenset[str]:
        """Keys that have to be made anew."""
        return frozenset({names.AGENTS_KEY} if self.roles or self.documents else ())


def holders_in(namespace: str) -> tuple[AgentHolder, ...]:
    """Who may be an agent, where the controller namespace is this one."""
    return tuple(
        AgentHolder(names.AGENTS_ACCOUNT, namespace, account, role)
        for role, account in sorted(names.AGENT_SERVICE_ACCOUNTS.items())
    )


def scopes_in(namespace: str) -> tuple[Scope, Scope]:
    """The account's scoped keys: that of all agents, which rotates on the networks' schedule, and our own."""
    return (
        Scope(names.AGENTS_KEY, "agent", AGENT_TEMPLATE, holders=holders_in(namespace), orders=KeyOrders()),
        Scope(names.AGENTS_CONTROLLER_KEY, "controller", AGENTS_CONTROLLER_TEMPLATE),
    )


def agent_grants(
    account: str, key: SigningKey, holders: Iterable[Holder], configuration: Configuration
) -> tuple[Grant, ...]:
    """The agents' grants: those of pods, but for where the hub is."""
    hub = {"hub": list(configuration.mesh.agent_urls), "leaf": []}
    make = GrantMaker(account, CredentialTimes(), configuration, {})
    grants = (make.grant(holder, key) for holder in holders)
    return tuple(replace(grant, document={**grant.document, **hub}) for grant in grants)


def find_strays(found: VaultGrants, holders: Iterable[Holder]) -> Strays:
    """What of Vault's content belongs to none of these."""
    wanted = {holder.role: holder.path for holder in holders}
    return Strays(
        roles=tuple(name for name in found.role_names() if name not in wanted),
        documents=tuple(sorted(found.documents.keys() - set(wanted.values()))),
    )


def accounts_named(documents: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """Public keys of the accounts that these access documents name: also one whose key was lost since."""
    return frozenset(str(document["account"]) for document in documents.values() if document.get("account"))
