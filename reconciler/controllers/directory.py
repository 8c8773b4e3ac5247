"""Finds our resources, and what belongs to what, among what the informers have seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from reconciler.context import Context, Mapper, Watch
from reconciler.desired.membership import Verdict, assign, assign_stream
from reconciler.desired.resources import FoundNetwork, FoundPolicy, FoundStream, named_network, selected_nodes
from reconciler.ports import EDGE_NETWORK, NETWORK, POLICY, STREAM, Object

_BY_NAMESPACE: Final = "namespace"
_BY_NAME: Final = "name"
_BY_NETWORK: Final = "network"
_BY_LISTED_NAMESPACE: Final = "listed-namespace"
_BY_DEFAULT_POLICY: Final = "default-policy"


class Directory:
    """Networks and EdgeNetworks of the controller namespace, and Policies and Streams of all namespaces.

    As far as the informers have seen them, so whoever asks for a kind must watch it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self.namespace = context.settings.namespace

    def watch_networks(self, mapper: Mapper) -> Watch:
        """Networks live in the controller namespace only."""
        indexes = {_BY_LISTED_NAMESPACE: _listed_namespaces, _BY_DEFAULT_POLICY: _default_policy_ref}
        return Watch(NETWORK, mapper, namespace=self.namespace, indexes=indexes)

    def watch_policies(self, mapper: Mapper) -> Watch:
        """Policies live anywhere."""
        indexes = {_BY_NAMESPACE: _namespace, _BY_NAME: _name, _BY_NETWORK: _named_network}
        return Watch(POLICY, mapper, indexes=indexes)

    def watch_edge_networks(self, mapper: Mapper) -> Watch:
        """EdgeNetworks live in the controller namespace only."""
        return Watch(EDGE_NETWORK, mapper, namespace=self.namespace, indexes={_BY_NETWORK: _named_network})

    def watch_streams(self, mapper: Mapper) -> Watch:
        """Streams live anywhere."""
        return Watch(STREAM, mapper, indexes={_BY_NAMESPACE: _namespace, _BY_NETWORK: _named_network})

    def network(self, name: str) -> Object | None:
        """The Network of that name."""
        return self._context.store(NETWORK, namespace=self.namespace).get(self.namespace, name)

    def networks_listing(self, namespace: str) -> list[Object]:
        """Networks whose `spec.namespaces` has this one."""
        return list(self._context.store(NETWORK, namespace=self.namespace).by_index(_BY_LISTED_NAMESPACE, namespace))

    def networks_copying(self, policy: str) -> list[Object]:
        """Networks whose default policy refers to this Policy of the controller namespace."""
        return list(self._context.store(NETWORK, namespace=self.namespace).by_index(_BY_DEFAULT_POLICY, policy))

    def policy(self, namespace: str, name: str) -> Object | None:
        """One Policy."""
        return self._context.store(POLICY).get(namespace, name)

    def policies_in(self, namespace: str) -> list[Object]:
        """All Policies of a namespace."""
        return list(self._context.store(POLICY).by_index(_BY_NAMESPACE, namespace))

    def policies_called(self, name: str) -> list[Object]:
        """All Policies of this name, whatever their namespace."""
        return list(self._context.store(POLICY).by_index(_BY_NAME, name))

    def policies_naming(self, network: str) -> list[Object]:
        """All Policies that name this network."""
        return list(self._context.store(POLICY).by_index(_BY_NETWORK, network))

    def verdict(self, policy: FoundPolicy) -> Verdict:
        """Which network the Policy belongs to."""
        networks = self._candidates(policy.namespace, policy.network)
        if policy.namespace == self.namespace:
            networks |= {each.name: each for each in map(FoundNetwork.read, self.networks_copying(policy.name))}
        return assign(policy, networks, self.namespace)

    def networks_around(self, policy: Object) -> set[str]:
        """Names of all networks that this Policy may belong to, or have belonged to, or be the default policy of."""
        metadata = policy["metadata"]
        found = self.networks_listing(metadata["namespace"])
        if metadata["namespace"] == self.namespace:
            found += self.networks_copying(metadata["name"])
        return {*_named_network(policy), *(network["metadata"]["name"] for network in found)}

    def policies_around(self, network: Object) -> list[Object]:
        """All Policies whose network this may be, or whose copies it has."""
        found = [policy for namespace in _listed_namespaces(network) for policy in self.policies_in(namespace)]
        found += self.policies_naming(network["metadata"]["name"])
        templates = (self.policy(self.namespace, name) for name in _default_policy_ref(network))
        return [*found, *(template for template in templates if template is not None)]

    def edge_network(self, name: str) -> Object | None:
        """One EdgeNetwork."""
        return self._context.store(EDGE_NETWORK, namespace=self.namespace).get(self.namespace, name)

    def edge_networks_of(self, network: str) -> list[Object]:
        """All EdgeNetworks that name this network, whatever their state."""
        return list(self._context.store(EDGE_NETWORK, namespace=self.namespace).by_index(_BY_NETWORK, network))

    def has_edges(self, network: str) -> bool:
        """Whether an EdgeNetwork that stays names this network, perhaps one with mistakes."""
        return any("deletionTimestamp" not in edge["metadata"] for edge in self.edge_networks_of(network))

    def edge_nodes_of(self, network: str) -> set[str]:
        """Nodes that the network's EdgeNetworks were seen to select."""
        return set().union(*map(selected_nodes, self.edge_networks_of(network)))

    def networks_with_edges(self) -> list[str]:
        """Names of all networks that an EdgeNetwork names."""
        edges = self._context.store(EDGE_NETWORK, namespace=self.namespace).list(self.namespace)
        return sorted({name for edge in edges for name in _named_network(edge)})

    def stream(self, namespace: str, name: str) -> Object | None:
        """One Stream."""
        return self._context.store(STREAM).get(namespace, name)

    def streams_of(self, network: str) -> list[tuple[Object, FoundStream]]:
        """The Streams that belong to a network. One that only its finalizers keep is gone for us."""
        root = self.network(network)
        around = [] if root is None else self.streams_around(root)
        streams = ((stream, FoundStream.read(stream)) for stream in around)
        return [
            (obj, found)
            for obj, found in streams
            if not found.deleting and self.stream_verdict(found).network == network
        ]

    def stream_verdict(self, stream: FoundStream) -> Verdict:
        """Which network the Stream belongs to."""
        return assign_stream(stream, self._candidates(stream.namespace, stream.network))

    def networks_around_stream(self, stream: Object) -> set[str]:
        """Names of all networks that this Stream may belong to, or have belonged to."""
        found = self.networks_listing(stream["metadata"]["namespace"])
        return {*_named_network(stream), *(network["metadata"]["name"] for network in found)}

    def streams_around(self, network: Object) -> list[Object]:
        """All Streams whose network this may be, each once."""
        store = self._context.store(STREAM)
        found = [*store.by_index(_BY_NETWORK, network["metadata"]["name"])]
        for namespace in _listed_namespaces(network):
            found += (s for s in store.by_index(_BY_NAMESPACE, namespace) if named_network(s) is None)
        return found

    def _candidates(self, namespace: str, named: str | None) -> dict[str, FoundNetwork]:
        """Networks that decide about an object of this namespace that names this network, or none."""
        if named is None:
            found = self.networks_listing(namespace)
        else:
            network = self.network(named)
            found = [] if network is None else [network]
        return {network.name: network for network in map(FoundNetwork.read, found)}


def _namespace(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["namespace"],)


def _name(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["name"],)


def _named_network(obj: Object) -> Iterable[str]:
    named = named_network(obj)
    return () if named is None else (named,)


def _listed_namespaces(network: Object) -> Iterable[str]:
    return FoundNetwork.listed_namespaces(network)


def _default_policy_ref(network: Object) -> Iterable[str]:
    found = FoundNetwork.read(network)
    return (found.network.default_policy_ref,) if found.network and found.network.default_policy_ref else ()
