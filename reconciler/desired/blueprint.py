"""Puts together what one network shall be, from everything that Kubernetes says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgefarm.api.network import CredentialTimes, Limits, Network
from edgefarm.api.policy import Permissions, Policy
from reconciler.configuration import Configuration
from reconciler.desired.copies import CopyPlan, Template, effective_policies, find_template, plan_copies
from reconciler.desired.grants import Holder
from reconciler.desired.keys import KeyOrders
from reconciler.desired.membership import Claims, share_accounts
from reconciler.desired.resources import FoundPolicy


@dataclass(frozen=True)
class Surroundings:
    """What Kubernetes holds around one network.

    `policies` are those that belong to it; `template` is what its default policy refers to; `same_name` are the raw
    Policies named like the copies of its default policy, by namespace; `namespaces` those that exist and stay;
    `accounts` the service accounts (namespace, name) that exist.
    """

    policies: tuple[Policy, ...]
    template: FoundPolicy | None
    same_name: Mapping[str, Mapping[str, Any]]
    namespaces: frozenset[str]
    accounts: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Member:
    """One Policy's part in a network: what its users may do, and which service accounts those are."""

    namespace: str
    policy: str
    permissions: Permissions
    accounts: tuple[str, ...]
    orders: KeyOrders


@dataclass(frozen=True)
class Blueprint:
    """What NATS and Vault shall hold for a network; as long as it stays equal, nothing changes there by our doing."""

    name: str
    limits: Limits
    credentials: CredentialTimes
    members: tuple[Member, ...]
    configuration: Configuration

    def holders(self, member: Member) -> tuple[Holder, ...]:
        """The service accounts of one member."""
        return tuple(Holder(self.name, member.namespace, account, member.policy) for account in member.accounts)


@dataclass(frozen=True)
class Plan:
    """All that one pass wants: in NATS and Vault (`blueprint`) and in Kubernetes (the rest)."""

    blueprint: Blueprint
    copies: CopyPlan
    template: Template
    claims: Mapping[tuple[str, str], Claims]
    missing_namespaces: tuple[str, ...]
    missing_accounts: tuple[tuple[str, str], ...]


def plan_network(network: Network, around: Surroundings, configuration: Configuration, now: datetime) -> Plan:
    """Decide what the network shall be."""
    existing = [namespace for namespace in network.namespaces if namespace in around.namespaces]
    template = find_template(network, around.template)
    copies = plan_copies(network, template, existing, around.same_name)
    policies = effective_policies(around.policies, network.name, copies, now)
    claims = share_accounts(policies, network.name)
    own = {(policy.meta.namespace, policy.meta.name) for policy in policies if policy.meta.namespace in existing}
    return Plan(
        blueprint=Blueprint(
            name=network.name,
            limits=network.limits,
            credentials=network.credentials,
            members=tuple(sorted((_member(policy, claims) for policy in policies), key=_identity)),
            configuration=configuration,
        ),
        copies=copies,
        template=template,
        claims=claims,
        missing_namespaces=tuple(sorted(set(network.namespaces) - set(existing))),
        missing_accounts=tuple(sorted(own - around.accounts)),
    )


def _member(policy: Policy, claims: Mapping[tuple[str, str], Claims]) -> Member:
    return Member(
        namespace=policy.meta.namespace,
        policy=policy.meta.name,
        permissions=policy.permissions,
        accounts=claims[policy.meta.namespace, policy.meta.name].granted,
        orders=KeyOrders(policy.rotate_keys_at, policy.revoke_keys_before),
    )


def _identity(member: Member) -> tuple[str, str]:
    return member.namespace, member.policy
