"""Knows the pods of leafs, and tells which networks and domains a change of them, or of their connections, concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from edgefarm import names
from reconciler.context import Context, Mapper, Store, Watch
from reconciler.ports import POD, LeafOnHub, Object

_LABELS: Final = f"{names.LABEL_TYPE}={names.TYPE_LEAF}"
#: When to ask a domain again that does not answer yet, although its leaf is connected.
COMING_SOON: Final = timedelta(seconds=10)
_BY_NETWORK: Final = "network"
_BY_DOMAIN: Final = "leaf-domain"


@dataclass(frozen=True)
class LeafDomain:
    """The JetStream domain of one leaf pod that is bound to a node."""

    network: str
    domain: str


class LeafPods:
    """The pods of all leafs, as far as the informer has seen them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._heard: dict[str, bool] = {}

    def watch(self, mapper: Mapper) -> Watch:
        """Leafs live in the controller namespace only."""
        indexes = {_BY_NETWORK: _network, _BY_DOMAIN: _domains}
        return Watch(POD, mapper, namespace=self._context.settings.namespace, labels=_LABELS, indexes=indexes)

    def of(self, network: str) -> Sequence[Object]:
        """All leaf pods of a network."""
        return self._pods.by_index(_BY_NETWORK, network)

    def came_or_went(self, leafs: Sequence[LeafOnHub]) -> list[LeafDomain]:
        """Of leaf connections that are told to have changed, the domains of those that came or went; their round trips
        do not matter here. None told: all domains."""
        now = {leaf.connection: leaf.listening for leaf in self._context.leafs().leafs}
        before, self._heard = self._heard, now
        if not leafs:
            return [domain for pod in self._pods.list() for domain in leaf_domains(pod)]
        moved = {leaf.name for leaf in leafs if before.get(leaf.connection) != now.get(leaf.connection)}
        pods = [pod for name in sorted(moved) for pod in self._pods.by_index(_BY_DOMAIN, name)]
        return [domain for pod in pods for domain in leaf_domains(pod)]

    def is_connected(self, domain: str) -> bool:
        """Whether the hub sees the leaf of a domain, although perhaps not yet its JetStream."""
        return any(leaf.name == domain for leaf in self._context.leafs().leafs)

    @property
    def _pods(self) -> Store:
        return self._context.store(POD, namespace=self._context.settings.namespace, labels=_LABELS)


def leaf_domains(pod: Object | None) -> Iterator[LeafDomain]:
    """The domain of a leaf pod, once it is bound to a node."""
    if pod is None:
        return
    network = (pod["metadata"].get("labels") or {}).get(names.LABEL_OF_NETWORK)
    node = (pod.get("spec") or {}).get("nodeName")
    if network and node:
        yield LeafDomain(network, names.leaf_domain(network, node))


def is_ready(pod: Object | None) -> bool:
    """Whether the leaf's containers say that they are."""
    conditions = ((pod or {}).get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def _network(pod: Object) -> Iterable[str]:
    return (domain.network for domain in leaf_domains(pod))


def _domains(pod: Object) -> Iterable[str]:
    return (domain.domain for domain in leaf_domains(pod))
