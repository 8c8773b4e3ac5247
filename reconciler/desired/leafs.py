"""Decides about a network's leafs: what they store, what they are told of the hub, and where pods find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.api.network import Limits, Network
from edgefarm.api.stream import Stream
from edgefarm.grants import grant_policy
from edgefarm.nats.jetstream_rights import StoredSubjects
from reconciler.configuration import Configuration
from reconciler.desired.grants import Grant, SigningKey
from reconciler.desired.keys import KeyOrders, orders_of
from reconciler.desired.resources import FoundEdgeNetwork
from reconciler.desired.streams import Surroundings, identity, plan_streams

#: Why a Stream stores nothing of what it says; all other refusals only put it off.
_NOTHING_STORED: Final = (
    "DuplicateName",
    "EdgeNetworkNotFound",
    "EdgeNetworkOfOtherNetwork",
    "SubjectsOverlap",
    "SubjectsReserved",
)


@dataclass(frozen=True)
class LeafEntry:
    """Where pods find the leaf of their own node, and the authorities of its certificate (PEM)."""

    urls: tuple[str, ...]
    ca: str

    def members(self) -> dict[str, Any]:
        """Its part of an access document."""
        return {"leaf": list(self.urls), "leafCa": self.ca}


@dataclass(frozen=True)
class Leafs:
    """One EdgeNetwork's part in a network.

    `stored` are the subjects of the streams on its nodes, `storage` is what a leaf's server must be able to store.
    """

    edge_network: str
    namespace: str
    stored: tuple[str, ...]
    storage: Limits
    orders: KeyOrders

    @property
    def service_account(self) -> str:
        """The account that the leafs run under."""
        return names.leaf_workload(self.edge_network)


@dataclass(frozen=True)
class SystemAccess:
    """What every leaf is told of operator and system account, and the key that its second user is signed with."""

    account: str
    key: SigningKey
    operator_jwt: str
    system_account_jwt: str


def usable_edges(edges: Iterable[FoundEdgeNetwork]) -> list[EdgeNetwork]:
    """Those that have leafs: not being deleted, and without mistakes."""
    return [found.edge for found in edges if found.edge is not None and not found.deleting]


def effective_streams(
    network: Network, streams: Sequence[Stream], edges: Mapping[str, FoundEdgeNetwork]
) -> list[Stream]:
    """The Streams that have the name and the subjects which they ask for."""
    plans = plan_streams(Surroundings(network, tuple(streams), edges, ()))
    refusals = {key: plan.refusal.reason for key, plan in plans.items() if plan.refusal is not None}
    return [stream for stream in streams if refusals.get(identity(stream)) not in _NOTHING_STORED]


def plan_leafs(network: Network, edges: Iterable[EdgeNetwork], streams: Sequence[Stream]) -> tuple[Leafs, ...]:
    """What the EdgeNetworks bring into the network, by name."""
    return tuple(
        Leafs(
            edge_network=edge.name,
            namespace=edge.meta.namespace,
            stored=_stored_on(edge, streams),
            storage=_larger(network.limits, edge.limits),
            orders=orders_of(edge.meta.annotations)[0],
        )
        for edge in sorted(edges, key=lambda edge: edge.name)
    )


def stored_subjects(streams: Sequence[Stream]) -> tuple[StoredSubjects, ...]:
    """What each stream holds; a linked one holds what the other holds."""
    by_name = {(stream.location, stream.name): stream for stream in streams}
    found = []
    for stream in streams:
        origin: Stream | None = stream
        for _ in streams:  # as many steps as a chain of links can have
            if origin is None or origin.link is None:
                break
            origin = by_name.get(("main" if origin.location == "edge" else "edge", origin.link))
        if origin is not None and origin.subjects:
            found.append(StoredSubjects(stream.name, tuple(sorted(origin.subjects))))
    return tuple(sorted(found, key=lambda stored: (stored.stream, stored.subjects)))


def leaf_grant(grant: Grant, configuration: Configuration, system: SystemAccess, storage: Limits) -> Grant:
    """The grant of a leaf, from what a pod in its place would get."""
    text = grant_policy(
        configuration.vault.server, grant.document["transitKey"], grant.path, also=(system.key.transit_key,)
    )
    document: dict[str, Any] = {
        **{name: value for name, value in grant.document.items() if name != "leafCa"},
        "hub": list(configuration.nats.leaf_urls),
        "leaf": [],
        "system": {
            "account": system.account,
            "signingKey": system.key.public,
            "transitKey": system.key.transit_key,
            "keyVersion": system.key.version,
        },
        "server": {
            "operatorJwt": system.operator_jwt,
            "systemAccountJwt": system.system_account_jwt,
            "fileStorage": storage.file_storage,
            "memoryStorage": storage.memory_storage,
        },
    }
    return replace(grant, policy=text, document=document)


def _stored_on(edge: EdgeNetwork, streams: Iterable[Stream]) -> tuple[str, ...]:
    found = {
        subject
        for stream in streams
        if stream.location == "edge" and stream.edge_network in (None, edge.name)
        for subject in stream.subjects
    }
    return tuple(sorted(found))


def _larger(one: Limits, other: Limits) -> Limits:
    """A server enables JetStream for an account only if it could store all that the account may."""
    return Limits(
        file_storage=max(one.file_storage, other.file_storage),
        memory_storage=max(one.memory_storage, other.memory_storage),
    )
