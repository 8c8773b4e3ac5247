"""What wakes the controller of Networks: which networks changes in the cluster, and of leafs, concern."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgefarm import names
from reconciler.context import Context, Key, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.controllers.leaf_objects import watch_leaf_objects
from reconciler.desired.resources import FoundNetwork, named_network, selected_nodes
from reconciler.ports import NAMESPACE, SERVICE_ACCOUNT, LeafOnHub, Object


class NetworkTriggers:
    """Mappers to keys of one controller."""

    def __init__(self, controller: str, context: Context, directory: Directory) -> None:
        self._controller = controller
        self._namespace = context.settings.namespace
        self._directory = directory

    def watches(self) -> list[Watch]:
        """All that matters in the cluster."""
        return [
            self._directory.watch_networks(self._map_network),
            self._directory.watch_policies(self._map_policy),
            Watch(NAMESPACE, self._map_namespace),
            Watch(SERVICE_ACCOUNT, self._map_service_account),
            self._directory.watch_edge_networks(self._map_edge_network),
            self._directory.watch_streams(self._map_stream),
            *watch_leaf_objects(self._namespace, self._map_leaf_object),
        ]

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if not worth_a_look(old, new):
            return
        for obj in (old, new):
            if obj is not None:
                yield self._key(obj["metadata"]["name"])
                if reaches_others(old, new):
                    yield from self._rivals(obj)

    def _map_policy(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if worth_a_look(old, new):
            around = set().union(*(self._directory.networks_around(obj) for obj in (old, new) if obj is not None))
            yield from map(self._key, sorted(around))

    def _map_namespace(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if old is not None and new is not None and _is_ending(old) == _is_ending(new):
            return
        obj = new or old
        if obj is not None:
            for network in self._directory.networks_listing(obj["metadata"]["name"]):
                yield self._key(network["metadata"]["name"])

    def _map_service_account(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """Only a deletion matters: the account of a Policy is made again."""
        if old is not None and new is None:
            metadata = old["metadata"]
            policy = self._directory.policy(metadata["namespace"], metadata["name"])
            if policy is not None:
                yield from map(self._key, sorted(self._directory.networks_around(policy)))

    def _map_edge_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if worth_a_look(old, new) or selected_nodes(old) != selected_nodes(new):
            named = {named_network(obj) for obj in (old, new) if obj is not None}
            yield from map(self._key, sorted(name for name in named if name is not None))

    def _map_stream(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if worth_a_look(old, new):
            around = set().union(*(self._directory.networks_around_stream(obj) for obj in (old, new) if obj))
            yield from map(self._key, sorted(around))

    def _map_leaf_object(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """A Service or Secret of a network; what belongs to none is the authority, and concerns all that have leafs."""
        if not worth_a_look(old, new):
            return
        for obj in (old, new):
            if obj is not None:
                network = obj["metadata"]["labels"].get(names.LABEL_OF_NETWORK)
                yield from map(self._key, [network] if network else self._directory.networks_with_edges())

    def map_leafs(self, changed: Sequence[LeafOnHub]) -> Iterable[Key]:
        """Networks whose leafs came or went; when anything may have changed, all that have leafs."""
        concerned = {names.network_of_leaf(leaf.name) for leaf in changed}
        for network in self._directory.networks_with_edges():
            if not changed or network in concerned:
                yield self._key(network)

    def _rivals(self, network: Object) -> Iterable[Key]:
        """Networks that share a namespace with this one: whether a Policy there is ambiguous depends on both."""
        for namespace in FoundNetwork.listed_namespaces(network):
            for rival in self._directory.networks_listing(namespace):
                yield self._key(rival["metadata"]["name"])

    def _key(self, network: str) -> Key:
        return Key(self._controller, self._namespace, network)


def _is_ending(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]
