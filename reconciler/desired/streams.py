"""Decides which Streams of a network can be, and in which JetStream domains; what they are there is streams_config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.api.network import Limits, Network
from edgefarm.api.stream import UNLIMITED, Stream
from edgefarm.nats.subjects import overlaps
from reconciler.desired.resources import FoundEdgeNetwork

#: Namespace and name of a Stream object.
Identity = tuple[str, str]

#: Subjects that NATS itself, or replies to requests, use.
_RESERVED: Final = ("$JS.>", "$JSC.>", "$NRG.>", "$SYS.>", "_INBOX.>")
#: By `config.storage`: the field of `spec.limits`.
_LIMIT_FIELDS: Final = {"file": "filestorage", "memory": "inmemorystorage"}


@dataclass(frozen=True)
class Place:
    """A JetStream domain: `main`, or that of the leaf on a node, with the EdgeNetwork that put it there."""

    domain: str
    node: str | None = None
    edge_network: str | None = None


MAIN: Final = Place(names.MAIN_DOMAIN)


@dataclass(frozen=True)
class Refusal:
    """Why a Stream cannot be as it is written: a reason for programs, a sentence for humans."""

    reason: str
    message: str


@dataclass(frozen=True)
class Surroundings:
    """A network and all that lies in it: `streams` belong to it, `leafs` are its edge domains, and `edges` are its
    EdgeNetworks and all others that its Streams name."""

    network: Network
    streams: tuple[Stream, ...]
    edges: Mapping[str, FoundEdgeNetwork]
    leafs: tuple[Place, ...]


@dataclass(frozen=True)
class StreamPlan:
    """What becomes of one Stream: where it shall be, and where the stream is that it is linked to. With a refusal it is
    left as it is."""

    stream: Stream
    places: tuple[Place, ...] = ()
    sources: tuple[Place, ...] = ()
    refusal: Refusal | None = None


def identity(stream: Stream) -> Identity:
    """How one Stream is told from another."""
    return stream.meta.namespace, stream.meta.name


def leaf_places(network: str, pods: Iterable[Mapping[str, Any]], edges: Iterable[Mapping[str, Any]]) -> list[Place]:
    """The edge domains of a network, from the pods of its leafs and the EdgeNetworks as raw JSON.

    There is a domain where a leaf pod is bound to a node, and where an EdgeNetwork's status names a node: a pod that is
    replaced must not look like a node that has left, because a stream that ceases to collect from a node and begins
    again may receive twice what that node still holds.
    """
    found: dict[str, Place] = {}
    for pod in pods:
        node = (pod.get("spec") or {}).get("nodeName")
        edge = (pod["metadata"].get("labels") or {}).get(names.LABEL_EDGE_NETWORK)
        if node and edge:
            domain = names.leaf_domain(network, node)
            found.setdefault(domain, Place(domain, node, edge))
    for obj in sorted(edges, key=lambda obj: (obj["metadata"].get("creationTimestamp", ""), obj["metadata"]["name"])):
        if "deletionTimestamp" not in obj["metadata"]:
            for entry in (obj.get("status") or {}).get("nodes") or ():
                found.setdefault(entry["domain"], Place(entry["domain"], entry["name"], obj["metadata"]["name"]))
    return sorted(found.values(), key=lambda place: place.domain)


def plan_streams(around: Surroundings) -> dict[Identity, StreamPlan]:
    """Decide about all Streams of a network at once; the order in which they are given does not matter.

    The older Stream keeps its name and subjects; of two equally old ones the first by namespace and name.
    """
    in_order = sorted(around.streams, key=lambda stream: (stream.meta.created, identity(stream)))
    refusals: dict[Identity, Refusal] = {}
    held = _Held()
    for stream in in_order:
        refusal = _unusable(stream, around) or held.conflict(stream)
        if refusal is None:
            held.add(stream)
        else:
            refusals[identity(stream)] = refusal
    # What follows takes no name and no subject away: as soon as it is put right, the stream is what it was.
    for check in (_links, _storage, _budgets):
        for key, refusal in check(held.streams, around).items():
            refusals.setdefault(key, refusal)
    return {identity(stream): _place(stream, held, around, refusals.get(identity(stream))) for stream in in_order}


class _Held:
    """The names and subjects that are given away so far."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self._by_name: dict[tuple[str, str], Stream] = {}
        self._by_token: dict[str, list[tuple[str, Stream]]] = {}

    def add(self, stream: Stream) -> None:
        self.streams.append(stream)
        self._by_name[stream.location, stream.name] = stream
        for subject in stream.subjects:
            self._by_token.setdefault(_first_token(subject), []).append((subject, stream))

    def named(self, location: str, name: str) -> Stream | None:
        return self._by_name.get((location, name))

    def conflict(self, stream: Stream) -> Refusal | None:
        """What an older Stream has that this one wants, too.

        A name is one for both locations: an acknowledgement does not say in which domain the message was, so one for
        the stream of a node could count for a consumer of the same name in the hub.
        """
        holder = self.named("main", stream.name) or self.named("edge", stream.name)
        if holder is not None:
            return Refusal(
                "DuplicateName",
                f"the name {stream.name!r} belongs to {_called(holder)}, which is older: write another spec.name, also "
                "for a stream of the other location",
            )
        for subject in stream.subjects:
            for other, holder in self._near(subject):
                if overlaps(subject, other) and _can_meet(stream, holder):
                    return Refusal(
                        "SubjectsOverlap",
                        f"{subject!r} overlaps with {other!r} of {_called(holder)}, which is older: a message can only "
                        "be in one stream of a location, so write other subjects or remove those there",
                    )
        return None

    def _near(self, subject: str) -> Iterable[tuple[str, Stream]]:
        token = _first_token(subject)
        if token == "*":
            return (entry for entries in self._by_token.values() for entry in entries)
        return [*self._by_token.get(token, ()), *self._by_token.get("*", ())]


def _first_token(subject: str) -> str:
    token = subject.split(".", 1)[0]
    return "*" if token == ">" else token


def _can_meet(one: Stream, other: Stream) -> bool:
    """Whether there may be a domain that has both."""
    if one.location != other.location:
        return False
    return None in (one.edge_network, other.edge_network) or one.edge_network == other.edge_network


def _unusable(stream: Stream, around: Surroundings) -> Refusal | None:
    """What is wrong with a Stream whatever the others are."""
    for subject in stream.subjects:
        if subject.startswith("$") or any(overlaps(subject, reserved) for reserved in _RESERVED):
            return Refusal(
                "SubjectsReserved",
                f"{subject!r} takes in subjects of NATS itself ($JS.>, $SYS.>, _INBOX.> and others): write subjects "
                "that begin with a word of your own",
            )
    for index, subject in enumerate(stream.subjects):
        for other in stream.subjects[index + 1 :]:
            if overlaps(subject, other):
                return Refusal("SubjectsOverlap", f"{subject!r} overlaps with {other!r} in the same Stream: keep one")
    return _foreign_edge_network(stream, around) if stream.edge_network is not None else None


def _foreign_edge_network(stream: Stream, around: Surroundings) -> Refusal | None:
    found = around.edges.get(str(stream.edge_network))
    if found is None or found.deleting:
        return Refusal(
            "EdgeNetworkNotFound",
            f"there is no EdgeNetwork {stream.edge_network!r}: create it or correct spec.edgeNetwork",
        )
    if found.network != around.network.name:
        return Refusal(
            "EdgeNetworkOfOtherNetwork",
            f"EdgeNetwork {stream.edge_network!r} belongs to another network: write one of {around.network.name!r}",
        )
    return None


def _links(streams: Sequence[Stream], around: Surroundings) -> dict[Identity, Refusal]:
    by_name: dict[tuple[str, str], Stream] = {(stream.location, stream.name): stream for stream in streams}
    refusals = {}
    for stream in streams:
        if stream.link is None:
            continue
        refusal = None
        if (_other(stream.location), stream.link) not in by_name:
            refusal = _missing_link(stream, same_location=(stream.location, stream.link) in by_name)
        elif _is_circular(stream, by_name):
            refusal = Refusal(
                "LinkCycle",
                f"the link to {stream.link!r} leads back to this stream: give one stream of the circle subjects "
                "instead of a link",
            )
        if refusal is not None:
            refusals[identity(stream)] = refusal
    return refusals


def _missing_link(stream: Stream, *, same_location: bool) -> Refusal:
    other = _other(stream.location)
    if same_location:
        return Refusal(
            "LinkSameLocation",
            f"the linked stream {stream.link!r} is at location {stream.location}, too: a link leads to a stream at "
            f"location {other}",
        )
    return Refusal(
        "LinkNotFound",
        f"there is no stream {stream.link!r} at location {other}: create it or correct spec.link.stream",
    )


def _is_circular(start: Stream, by_name: Mapping[tuple[str, str], Stream]) -> bool:
    """Whether its links lead back to it; a circle that it only leads into is the trouble of others."""
    visited: set[Identity] = set()
    stream: Stream | None = start
    while stream is not None and identity(stream) not in visited:
        visited.add(identity(stream))
        stream = by_name.get((_other(stream.location), stream.link)) if stream.link is not None else None
    return stream is start


def _other(location: str) -> str:
    return "main" if location == "edge" else "edge"


def _storage(streams: Sequence[Stream], around: Surroundings) -> dict[Identity, Refusal]:
    """Whether there is storage of the wanted kind at all."""
    refusals = {}
    for stream in streams:
        kind = stream.config.storage
        without = [f"Network {around.network.name!r}"] if not _limit(around.network.limits, kind) else []
        without += [f"EdgeNetwork {name!r}" for name, limits in _edges(stream, around) if not _limit(limits, kind)]
        if without:
            refusals[identity(stream)] = Refusal(
                "LimitsMissing",
                f"{' and '.join(without)} may not store anything of kind {kind}: set "
                f"spec.limits.{_LIMIT_FIELDS[kind]} there or use another spec.config.storage",
            )
    return refusals


def _budgets(streams: Sequence[Stream], around: Surroundings) -> dict[Identity, Refusal]:
    """Keeps streams on nodes within an EdgeNetwork's limit where that is smaller than the network's, because NATS only
    knows the latter. Older Streams are counted first."""
    refusals: dict[Identity, Refusal] = {}
    spent: dict[tuple[str, str], int] = {}
    for stream in streams:
        kind, wanted = stream.config.storage, stream.config.max_bytes
        smaller = [
            (name, _limit(limits, kind))
            for name, limits in _edges(stream, around)
            if _limit(limits, kind) < _limit(around.network.limits, kind)
        ]
        refusal = next(filter(None, (_exceeds(stream, name, limit, spent) for name, limit in smaller)), None)
        if refusal is not None:
            refusals[identity(stream)] = refusal
            continue
        for name, _ in smaller:
            spent[name, kind] = spent.get((name, kind), 0) + wanted
    return refusals


def _exceeds(stream: Stream, edge: str, limit: int, spent: Mapping[tuple[str, str], int]) -> Refusal | None:
    kind, wanted = stream.config.storage, stream.config.max_bytes
    if wanted == UNLIMITED:
        return Refusal(
            "MaxBytesRequired",
            f"EdgeNetwork {edge!r} allows its nodes {limit} bytes, less than the network has: set spec.config.maxBytes",
        )
    left = limit - spent.get((edge, kind), 0)
    if wanted <= left:
        return None
    return Refusal(
        "LimitExceeded",
        f"of the {limit} bytes that EdgeNetwork {edge!r} allows its nodes, older Streams leave {left}: lower "
        f"spec.config.maxBytes ({wanted}) or raise spec.limits.{_LIMIT_FIELDS[kind]} there",
    )


def _edges(stream: Stream, around: Surroundings) -> list[tuple[str, Limits]]:
    """The EdgeNetworks on whose nodes the Stream is, with their limits; those whose spec cannot be read have none."""
    if stream.location != "edge":
        return []
    return [
        (name, found.edge.limits)
        for name, found in sorted(around.edges.items())
        if found.edge is not None
        and not found.deleting
        and found.network == around.network.name
        and stream.edge_network in (None, name)
    ]


def _limit(limits: Limits, kind: str) -> int:
    return limits.file_storage if kind == "file" else limits.memory_storage


def _place(stream: Stream, held: _Held, around: Surroundings, refusal: Refusal | None) -> StreamPlan:
    places = _places(stream, around)
    linked = held.named(_other(stream.location), stream.link) if stream.link is not None else None
    sources = _places(linked, around) if linked is not None else ()
    if refusal is None and not places:
        where = f"EdgeNetwork {stream.edge_network!r} has" if stream.edge_network else "the network's EdgeNetworks have"
        refusal = Refusal("NoEdgeNodes", f"{where} no node: the stream is made on each one that joins")
    if refusal is None and stream.link is not None and not sources:
        refusal = Refusal(
            "NoEdgeNodes", f"the linked stream {stream.link!r} is on no node: this one is made with the first"
        )
    return StreamPlan(stream, places, sources, refusal)


def _places(stream: Stream, around: Surroundings) -> tuple[Place, ...]:
    if stream.location == "main":
        return (MAIN,)
    return tuple(leaf for leaf in around.leafs if stream.edge_network in (None, leaf.edge_network))


def _called(stream: Stream) -> str:
    return f"the Stream {stream.meta.namespace}/{stream.meta.name}"
