"""Puts together what one network shall be, from everything that Kubernetes says about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edgefarm import names
from edgefarm.api.network import CredentialTimes, Limits, Network
from edgefarm.api.policy import Policy
from edgefarm.api.stream import Stream
from edgefarm.nats.jetstream_rights import StoredSubjects
from reconciler.configuration import Configuration
from reconciler.desired.copies import CopyPlan, Template, effective_policies, find_template, plan_copies
from reconciler.desired.keys import KeyOrders
from reconciler.desired.leafs import LeafEntry, Leafs, effective_streams, plan_leafs, stored_subjects, usable_edges
from reconciler.desired.membership import Claims, share_accounts
from reconciler.desired.resources import FoundEdgeNetwork, FoundPolicy
from reconciler.desired.rights import Rights, rights_of


@dataclass(frozen=True)
class Surroundings:
    """What Kubernetes holds around one network.

    `policies` are those that belong to it; `template` is what its default policy refers to; `same_name` are the raw
    Policies named like the copies of its default policy, by namespace; `namespaces` those that exist and stay;
    `accounts` the service accounts (namespace, name) that exist. `edges` are the EdgeNetworks that name it and those
    that its `streams` name; `entry` is where pods find the leaf of their node.
    """

    policies: tuple[Policy, ...]
    template: FoundPolicy | None
    same_name: Mapping[str, Mapping[str, Any]]
    namespaces: frozenset[str]
    accounts: frozenset[tuple[str, str]]
    edges: tuple[FoundEdgeNetwork, ...] = ()
    streams: tuple[Stream, ...] = ()
    entry: LeafEntry | None = None


@dataclass(frozen=True)
class Member:
    """One Policy's part in a network: what its users may do, and which service accounts those are."""

    namespace: str
    policy: str
    rights: Rights
    accounts: tuple[str, ...]
    orders: KeyOrders


@dataclass(frozen=True)
class Blueprint:
    """What NATS and Vault shall hold for a network; as long as it stays equal, nothing changes there by our doing."""

    name: str
    limits: Limits
    credentials: CredentialTimes
    members: tuple[Member, ...]
    leafs: tuple[Leafs, ...]
    entry: LeafEntry | None
    configuration: Configuration


@dataclass(frozen=True)
class Plan:
    """All that one pass wants: in NATS and Vault (`blueprint`) and in Kubernetes (the rest). `streams` are counted."""

    blueprint: Blueprint
    copies: CopyPlan
    template: Template
    claims: Mapping[tuple[str, str], Claims]
    missing_namespaces: tuple[str, ...]
    missing_accounts: tuple[tuple[str, str], ...]
    streams: int


def plan_network(network: Network, around: Surroundings, configuration: Configuration, now: datetime) -> Plan:
    """Decide what the network shall be."""
    existing = [namespace for namespace in network.namespaces if namespace in around.namespaces]
    template = find_template(network, around.template)
    copies = plan_copies(network, template, existing, around.same_name)
    policies = effective_policies(around.policies, network.name, copies, now)
    edges = usable_edges(edge for edge in around.edges if edge.network == network.name)
    streams = effective_streams(network, around.streams, {edge.name: edge for edge in around.edges})
    leafs = plan_leafs(network, edges, streams)
    claims = share_accounts(policies, network.name, {(each.namespace, each.service_account) for each in leafs})
    own = {(policy.meta.namespace, policy.meta.name) for policy in policies if policy.meta.namespace in existing}
    stored = stored_subjects(streams)
    return Plan(
        blueprint=Blueprint(
            name=network.name,
            limits=network.limits,
            credentials=network.credentials,
            members=tuple(sorted((_member(policy, claims, stored) for policy in policies), key=_identity)),
            leafs=leafs,
            entry=around.entry,
            configuration=configuration,
        ),
        copies=copies,
        template=template,
        claims=claims,
        missing_namespaces=tuple(sorted(set(network.namespaces) - set(existing))),
        missing_accounts=tuple(sorted(own - around.accounts)),
        streams=len(around.streams),
    )


def _member(policy: Policy, claims: Mapping[tuple[str, str], Claims], stored: Collection[StoredSubjects]) -> Member:
    return Member(
        namespace=policy.meta.namespace,
        policy=policy.meta.name,
        rights=rights_of(policy.permissions, stored, names.consumer(policy.meta.namespace, policy.meta.name)),
        accounts=claims[policy.meta.namespace, policy.meta.name].granted,
        orders=KeyOrders(policy.rotate_keys_at, policy.revoke_keys_before),
    )


def _identity(member: Member) -> tuple[str, str]:
    return member.namespace, member.policy
