"""Decides which scoped signing keys a network's account has: one per Policy, one per EdgeNetwork, and our own."""

from __future__ import annotations

from dataclasses import dataclass

from edgefarm import names
from edgefarm.api.network import Limits
from edgefarm.nats.leaf_rights import template_of_leaf
from edgefarm.nats.templates import JETSTREAM_CONTROLLER_TEMPLATE, NACK_TEMPLATE, PermissionTemplate
from reconciler.desired.blueprint import Blueprint, Member
from reconciler.desired.grants import Holder
from reconciler.desired.keys import KeyOrders
from reconciler.desired.leafs import Leafs


@dataclass(frozen=True)
class Scope:
    """One scoped signing key, by the name of its transit key. `role` is for humans.

    `holders` may have users signed by it; with `storage` they are leafs, whose servers store that much. Without
    `orders` the key never rotates.
    """

    key: str
    role: str
    template: PermissionTemplate
    holders: tuple[Holder, ...] = ()
    orders: KeyOrders | None = None
    storage: Limits | None = None


def scopes_of(blueprint: Blueprint) -> list[Scope]:
    """All scoped keys of the network's account."""
    return [
        *(_of_policy(blueprint, member) for member in blueprint.members),
        *(_of_leafs(blueprint, leafs) for leafs in blueprint.leafs),
        Scope(names.controller_key(blueprint.name), "controller", JETSTREAM_CONTROLLER_TEMPLATE),
        *_of_nack(blueprint),
    ]


def policy_scope_key(blueprint: Blueprint, member: Member) -> str:
    """Name of a Policy's transit key."""
    return names.policy_key(blueprint.name, member.namespace, member.policy)


def _of_policy(blueprint: Blueprint, member: Member) -> Scope:
    accounts = (Holder(blueprint.name, member.namespace, account, member.policy) for account in member.accounts)
    return Scope(
        key=policy_scope_key(blueprint, member),
        role=f"{member.namespace}.{member.policy}",
        template=member.rights.template,
        holders=tuple(accounts),
        orders=member.orders,
    )


def _of_leafs(blueprint: Blueprint, leafs: Leafs) -> Scope:
    """Without an address of the hub for leafs nobody can be one, but who was one is not cut off."""
    holder = Holder(blueprint.name, leafs.namespace, leafs.service_account, leafs.edge_network)
    return Scope(
        key=names.leaf_key(blueprint.name, leafs.edge_network),
        role=f"leaf.{leafs.edge_network}",
        template=template_of_leaf(
            blueprint.name,
            publications={subject for member in blueprint.members for subject in member.rights.template.pub_allow},
            subscriptions={subject for member in blueprint.members for subject in member.rights.template.sub_allow},
            stored=leafs.stored,
        ),
        holders=(holder,) if blueprint.configuration.nats.leaf_urls else (),
        orders=leafs.orders,
        storage=leafs.storage,
    )


def _of_nack(blueprint: Blueprint) -> list[Scope]:
    """NACK's user stands in a Secret: its key rotates, and goes as soon as NACK has nothing to do here."""
    if blueprint.configuration.streams.driver != "nack":
        return []
    return [Scope(names.nack_key(blueprint.name), "nack", NACK_TEMPLATE, orders=KeyOrders())]
