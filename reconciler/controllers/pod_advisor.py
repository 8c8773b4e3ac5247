"""The controller of labelled pods: an Event on each that cannot get credentials says why and what to create."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from edgefarm import names
from edgefarm.api.meta import Meta
from reconciler.context import Context, Key, Registration, Result, Store, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.desired.advice import Advice, advise
from reconciler.desired.resources import FoundNetwork
from reconciler.ports import POD, Object

#: A pod is often applied together with the Policy that it needs; so long that is none of anybody's business.
GRACE: Final = timedelta(seconds=10)
_BY_NETWORK: Final = "network"
_BY_NAMESPACE: Final = "namespace"


class PodAdvisor:
    """Looks at one pod at a time. It says the same about a pod only once."""

    name = "pod-advisor"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._said: dict[Key, tuple[str, Advice]] = {}

    def watches(self) -> list[Watch]:
        """What wakes this controller: pods, and whatever may have helped them meanwhile."""
        return [
            Watch(
                POD,
                self._map_pod,
                labels=names.LABEL_NETWORK,
                indexes={_BY_NETWORK: _network_of, _BY_NAMESPACE: _namespace_of},
            ),
            self._directory.watch_networks(self._map_network),
            self._directory.watch_policies(self._map_policy),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one pod."""
        pod = self._pods().get(key.namespace, key.name)
        if pod is None:
            self._said.pop(key, None)
            return Result()
        age = self._context.clock() - Meta.parse(pod).created
        if age < GRACE:
            return Result(GRACE - age)
        advice = self._advice(pod)
        if advice is None:
            self._said.pop(key, None)
            return Result()
        said = (pod["metadata"]["uid"], advice)
        if self._said.get(key) != said:
            self._said[key] = said
            self._context.events.warning(pod, advice.reason, advice.message)
        return Result()

    def _advice(self, pod: Object) -> Advice | None:
        network = self._directory.network(pod["metadata"]["labels"][names.LABEL_NETWORK])
        found = FoundNetwork.read(network) if network else None
        return advise(pod, found, self._directory.policies_in(pod["metadata"]["namespace"]))

    def _pods(self) -> Store:
        return self._context.store(POD, labels=names.LABEL_NETWORK)

    def _map_pod(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        pod = new or old
        if pod is not None and worth_a_look(old, new):
            yield self._key(pod)

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        network = new or old
        if network is not None and reaches_others(old, new):
            yield from map(self._key, self._pods().by_index(_BY_NETWORK, network["metadata"]["name"]))

    def _map_policy(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        policy = new or old
        if policy is not None:
            yield from map(self._key, self._pods().by_index(_BY_NAMESPACE, policy["metadata"]["namespace"]))

    def _key(self, pod: Object) -> Key:
        return Key(self.name, pod["metadata"]["namespace"], pod["metadata"]["name"])


def _network_of(pod: Object) -> Iterable[str]:
    return (pod["metadata"]["labels"][names.LABEL_NETWORK],)


def _namespace_of(pod: Object) -> Iterable[str]:
    return (pod["metadata"]["namespace"],)


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = PodAdvisor(context)
    return Registration(controller, controller.watches())
