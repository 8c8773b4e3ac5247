"""Finds Networks and Policies, and what belongs to what, among what the informers have seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from reconciler.context import Context, Mapper, Watch
from reconciler.desired.membership import Verdict, assign
from reconciler.desired.resources import FoundNetwork, FoundPolicy
from reconciler.ports import NETWORK, POLICY, Object

_BY_NAMESPACE: Final = "namespace"
_BY_NAME: Final = "name"
_BY_NETWORK: Final = "network"
_BY_LISTED_NAMESPACE: Final = "listed-namespace"
_BY_DEFAULT_POLICY: Final = "default-policy"


class Directory:
    """Networks of the controller namespace and Policies of all namespaces, as far as the informers have seen them."""

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
        if policy.network is None:
            candidates = self.networks_listing(policy.namespace)
        else:
            named = self.network(policy.network)
            candidates = [named] if named else []
        if policy.namespace == self.namespace:
            candidates += self.networks_copying(policy.name)
        networks = {network.name: network for network in map(FoundNetwork.read, candidates)}
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


def worth_a_look(old: Object | None, new: Object | None) -> bool:
    """Whether a change may concern anybody but readers of the status; equal objects, as at a resync, always do."""
    if old is None or new is None or old["metadata"].get("resourceVersion") == new["metadata"].get("resourceVersion"):
        return True
    return _without_status(old) != _without_status(new)


def reaches_others(old: Object | None, new: Object | None) -> bool:
    """Whether a change of a Network may concern more than itself: not its finalizers, for example."""
    if old is None or new is None:
        return True
    return old.get("spec") != new.get("spec") or _is_ending(old) != _is_ending(new)


def _is_ending(obj: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _without_status(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    return {**{name: value for name, value in obj.items() if name != "status"}, "metadata": metadata}


def _namespace(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["namespace"],)


def _name(obj: Object) -> Iterable[str]:
    return (obj["metadata"]["name"],)


def _named_network(policy: Object) -> Iterable[str]:
    named = FoundPolicy.named_network(policy)
    return () if named is None else (named,)


def _listed_namespaces(network: Object) -> Iterable[str]:
    return FoundNetwork.listed_namespaces(network)


def _default_policy_ref(network: Object) -> Iterable[str]:
    found = FoundNetwork.read(network)
    return (found.network.default_policy_ref,) if found.network and found.network.default_policy_ref else ()
