"""Reads and writes what a network has in Kubernetes besides its Network: Policy copies and service accounts."""

from __future__ import annotations

from collections.abc import Iterable

from edgefarm import names
from edgefarm.api.meta import Meta
from edgefarm.api.network import Network
from edgefarm.api.stream import Stream
from edgefarm.errors import Conflict
from reconciler.concurrency import all_of
from reconciler.context import Context
from reconciler.controllers.directory import Directory
from reconciler.desired.blueprint import Plan, Surroundings
from reconciler.desired.leafs import LeafEntry
from reconciler.desired.membership import Verdict, is_copy
from reconciler.desired.resources import FoundEdgeNetwork, FoundPolicy, named_network
from reconciler.ports import NAMESPACE, POLICY, SERVICE_ACCOUNT, Object


class MemberPolicy:
    """A Policy of a network: as an object, as it was read, and why it belongs."""

    def __init__(self, obj: Object, found: FoundPolicy, verdict: Verdict) -> None:
        self.obj = obj
        self.found = found
        self.verdict = verdict


class ClusterObjects:
    """The Kubernetes side of all networks; reads come from the informers' stores."""

    def __init__(self, context: Context, directory: Directory) -> None:
        self._context = context
        self._directory = directory

    def members(self, network: Network) -> list[MemberPolicy]:
        """The Policies that belong to the network. One that only its finalizers keep is gone for us."""
        members = []
        for namespace in network.namespaces:
            for obj in self._directory.policies_in(namespace):
                if named_network(obj) not in (None, network.name):
                    continue
                found = FoundPolicy.read(obj)
                verdict = self._directory.verdict(found)
                if verdict.network == network.name and not found.deleting:
                    members.append(MemberPolicy(obj, found, verdict))
        return members

    def around(self, network: Network, members: list[MemberPolicy], entry: LeafEntry | None) -> Surroundings:
        """Everything else that decides about the network."""
        copies = self._directory.policies_called(names.default_policy(network.name))
        streams = [found.stream for _, found in self._directory.streams_of(network.name) if found.stream is not None]
        return Surroundings(
            policies=tuple(member.found.policy for member in members if member.found.policy is not None),
            template=self._template(network),
            same_name={obj["metadata"]["namespace"]: obj for obj in copies},
            namespaces=frozenset(filter(self._stays, network.namespaces)),
            accounts=frozenset(
                (member.found.namespace, member.found.name)
                for member in members
                if self._context.store(SERVICE_ACCOUNT).get(member.found.namespace, member.found.name)
            ),
            edges=self._edges(network.name, streams),
            streams=tuple(streams),
            entry=entry,
        )

    def _edges(self, network: str, streams: Iterable[Stream]) -> tuple[FoundEdgeNetwork, ...]:
        """The EdgeNetworks of the network, and those of others that its Streams name."""
        named = {stream.edge_network for stream in streams if stream.edge_network is not None}
        others = filter(None, map(self._directory.edge_network, named))
        found = map(FoundEdgeNetwork.read, [*self._directory.edge_networks_of(network), *others])
        return tuple(sorted({edge.name: edge for edge in found}.values(), key=lambda edge: edge.name))

    def _template(self, network: Network) -> FoundPolicy | None:
        ref = network.default_policy_ref
        obj = self._directory.policy(self._directory.namespace, ref) if ref else None
        return FoundPolicy.read(obj) if obj else None

    async def apply(self, plan: Plan) -> None:
        """Write copies of the default policy and missing service accounts."""
        kube, copies = self._context.kube, plan.copies
        await all_of(
            [
                *(kube.create(POLICY, copies.wanted[namespace]) for namespace in copies.create),
                *(kube.replace(POLICY, copies.wanted[namespace]) for namespace in copies.update),
                *(self._create_account(plan.blueprint.name, *account) for account in plan.missing_accounts),
            ]
        )
        await self._delete_copies(plan.blueprint.name, copies.delete)

    async def delete_copies(self, network: str) -> None:
        """Delete all copies of the network's default policy."""
        found = self._directory.policies_called(names.default_policy(network))
        await self._delete_copies(network, [obj["metadata"]["namespace"] for obj in found])

    async def _delete_copies(self, network: str, namespaces: list[str] | tuple[str, ...]) -> None:
        found = [self._directory.policy(namespace, names.default_policy(network)) for namespace in namespaces]
        ours = [meta for meta in (Meta.parse(obj) for obj in found if obj) if is_copy(meta, network)]
        await all_of([self._context.kube.delete(POLICY, meta.namespace, meta.name, uid=meta.uid) for meta in ours])

    async def _create_account(self, network: str, namespace: str, name: str) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_OF_NETWORK: network},
            },
        }
        try:
            await self._context.kube.create(SERVICE_ACCOUNT, account)
        except Conflict:
            return  # it exists, and the informer has not told yet

    def _stays(self, namespace: str) -> bool:
        """Whether a namespace exists and is not being deleted: nothing new can be created in one that is."""
        obj = self._context.store(NAMESPACE).get(None, namespace)
        return obj is not None and "deletionTimestamp" not in obj["metadata"]
