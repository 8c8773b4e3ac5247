"""Puts together the members of a network as the reconciler does: Policies, their service accounts, their rights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgefarm import names
from edgefarm.api.policy import Policy
from edgefarm.nats.jetstream_rights import StoredSubjects, consumer_rights
from edgefarm.nats.subjects import covers, intersection
from edgefarm.nats.templates import INBOX, PermissionTemplate
from reconciler.desired.leafs import effective_streams, plan_leafs, stored_subjects, usable_edges
from reconciler.desired.membership import assign, assign_stream, share_accounts
from reconciler.desired.resources import FoundEdgeNetwork, FoundNetwork, FoundPolicy, FoundStream
from reconciler.desired.rights import rights_of
from reconciler.ports import Object

_CREATE = "$JS.API.CONSUMER.CREATE"


@dataclass(frozen=True)
class Installation:
    """The objects that decide, as raw JSON."""

    controller_namespace: str
    networks: Sequence[Object]
    policies: Sequence[Object]
    streams: Sequence[Object] = ()
    edge_networks: Sequence[Object] = ()


@dataclass(frozen=True)
class Readable:
    """A stream from which a member may consume: what the filters match. With `consumer` that is a part of the stream
    and the only consumer that it may have there."""

    stream: str
    filters: tuple[str, ...]
    consumer: str | None

    def document(self) -> dict[str, object]:
        """Its part of a JSON document."""
        return {"stream": self.stream, "filters": list(self.filters), "consumer": self.consumer}


@dataclass(frozen=True)
class Member:
    """A Policy's part in its network: which service accounts it gives which rights."""

    policy: Policy
    accounts: tuple[str, ...]
    template: PermissionTemplate

    @property
    def namespace(self) -> str:
        return self.policy.meta.namespace

    @property
    def name(self) -> str:
        return self.policy.meta.name

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What its users may subscribe to, without the inboxes that every publisher has."""
        wanted = self.policy.permissions.allow_subscribe
        return tuple(subject for subject in self.template.sub_allow if subject != INBOX or subject in wanted)

    def readable(self, stored: Sequence[StoredSubjects]) -> Iterator[Readable]:
        """The streams from which its users may consume, by the rights that the reconciler gives them."""
        permissions = self.policy.permissions
        consumer = names.consumer(self.namespace, self.name)
        for stream in sorted({each.stream for each in stored}):
            group = [each for each in stored if each.stream == stream]
            rights = consumer_rights(permissions.allow_subscribe, permissions.deny_subscribe, group, consumer)
            if f"{_CREATE}.{stream}.>" in rights.allow:
                yield Readable(stream, tuple(sorted({s for each in group for s in each.subjects})), None)
                continue
            start = f"{_CREATE}.{stream}.{consumer}."
            filters = sorted(subject.removeprefix(start) for subject in rights.allow if subject.startswith(start))
            if filters:
                yield Readable(stream, tuple(filters), consumer)


@dataclass(frozen=True)
class Membership:
    """The members of one network, and what its streams store."""

    members: tuple[Member, ...] = ()
    stored: tuple[StoredSubjects, ...] = ()

    def holder(self, namespace: str, account: str) -> Member | None:
        """The member that the service account belongs to."""
        for member in self.members:
            if member.namespace == namespace and account in member.accounts:
                return member
        return None


def membership_of(network: str, around: Installation) -> Membership:
    """Who belongs to the network; nobody when it does not exist or has mistakes."""
    networks = {each.name: each for each in map(FoundNetwork.read, around.networks)}
    found = networks.get(network)
    if found is None or found.network is None:
        return Membership()
    policies = [
        each.policy
        for each in map(FoundPolicy.read, around.policies)
        if each.policy is not None
        and not each.deleting
        and assign(each, networks, around.controller_namespace).network == network
    ]
    listed = [
        each.stream
        for each in map(FoundStream.read, around.streams)
        if each.stream is not None and not each.deleting and assign_stream(each, networks).network == network
    ]
    edges = {each.name: each for each in map(FoundEdgeNetwork.read, around.edge_networks)}
    streams = effective_streams(found.network, listed, edges)
    leafs = plan_leafs(found.network, usable_edges(edge for edge in edges.values() if edge.network == network), streams)
    claims = share_accounts(policies, network, {(each.namespace, each.service_account) for each in leafs})
    stored = stored_subjects(streams)
    members = [
        Member(
            policy,
            claims[policy.meta.namespace, policy.meta.name].granted,
            rights_of(policy.permissions, stored, names.consumer(policy.meta.namespace, policy.meta.name)).template,
        )
        for policy in policies
    ]
    return Membership(tuple(sorted(members, key=lambda member: (member.namespace, member.name))), stored)


def shared_subjects(speaker: Member, hearer: Member) -> tuple[str, ...]:
    """What the one may publish and the other may subscribe to; none of these lies within another.

    A deny that takes away only a part of such a filter leaves the filter in the list.
    """
    denied = (*speaker.policy.permissions.deny_publish, *hearer.policy.permissions.deny_subscribe)
    common = {
        both
        for spoken in speaker.policy.permissions.allow_publish
        for heard in hearer.subscriptions
        if (both := intersection(spoken, heard)) and not any(covers(deny, both) for deny in denied)
    }
    widest = {one for one in common if not any(other != one and covers(other, one) for other in common)}
    return tuple(sorted(widest))
