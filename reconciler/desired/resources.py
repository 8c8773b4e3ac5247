"""Owns how our resources are read from raw JSON without ever failing: a mistake becomes part of the value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.api.network import Network
from edgefarm.api.policy import Policy
from edgefarm.api.stream import Stream
from edgefarm.errors import EdgefarmError, InvalidResource

T = TypeVar("T")


@dataclass(frozen=True)
class FoundNetwork:
    """A Network object as it was found.

    `network` is None when the spec cannot be used; `problem` then says why. `namespaces` are known even so, because who
    belongs to a network must not change with a typing mistake in one of its other fields.
    """

    name: str
    namespaces: tuple[str, ...]
    deleting: bool
    network: Network | None = None
    problem: str = ""

    @classmethod
    def read(cls, obj: Mapping[str, Any]) -> FoundNetwork:
        """From raw JSON as the API server sends it."""
        meta = obj["metadata"]
        network, problem = _parsed(Network.parse, obj)
        return cls(
            name=meta["name"],
            namespaces=cls.listed_namespaces(obj),
            deleting="deletionTimestamp" in meta,
            network=network,
            problem=problem,
        )

    @staticmethod
    def listed_namespaces(obj: Mapping[str, Any]) -> tuple[str, ...]:
        """What can be read of `spec.namespaces`, without duplicates."""
        return _texts(_spec(obj).get("namespaces"))


@dataclass(frozen=True)
class FoundPolicy:
    """A Policy object as it was found; `policy` is None when the spec cannot be used, and `problem` says why.

    A mistake in an annotation about keys only disables that annotation (`annotation_problem`): it must not cut anybody
    off.
    """

    namespace: str
    name: str
    network: str | None
    deleting: bool = False
    policy: Policy | None = None
    problem: str = ""
    annotation_problem: str = ""

    @classmethod
    def read(cls, obj: Mapping[str, Any]) -> FoundPolicy:
        """From raw JSON as the API server sends it."""
        meta = obj["metadata"]
        policy, problem, annotation_problem = _read_policy(obj)
        return cls(
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            network=named_network(obj),
            deleting="deletionTimestamp" in meta,
            policy=policy,
            problem=problem,
            annotation_problem=annotation_problem,
        )


@dataclass(frozen=True)
class FoundEdgeNetwork:
    """An EdgeNetwork object as it was found; `edge` is None when the spec cannot be used, and `problem` says why.

    `network` is what `spec.network` says, if it is text.
    """

    name: str
    network: str | None
    deleting: bool = False
    edge: EdgeNetwork | None = None
    problem: str = ""

    @classmethod
    def read(cls, obj: Mapping[str, Any]) -> FoundEdgeNetwork:
        """From raw JSON as the API server sends it."""
        meta = obj["metadata"]
        edge, problem = _parsed(EdgeNetwork.parse, obj)
        return cls(meta["name"], named_network(obj), "deletionTimestamp" in meta, edge, problem)


@dataclass(frozen=True)
class FoundStream:
    """A Stream object as it was found; `stream` is None when the spec cannot be used, and `problem` says why.

    `network` is what `spec.network` says, if it is text.
    """

    namespace: str
    name: str
    network: str | None
    deleting: bool = False
    stream: Stream | None = None
    problem: str = ""

    @classmethod
    def read(cls, obj: Mapping[str, Any]) -> FoundStream:
        """From raw JSON as the API server sends it."""
        meta = obj["metadata"]
        stream, problem = _parsed(Stream.parse, obj)
        return cls(
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            network=named_network(obj),
            deleting="deletionTimestamp" in meta,
            stream=stream,
            problem=problem,
        )


def _parsed(parse: Callable[[Mapping[str, Any]], T], obj: Mapping[str, Any]) -> tuple[T | None, str]:
    """The object, or None and what is wrong with it."""
    try:
        return parse(obj), ""
    except EdgefarmError as error:
        return None, str(error)


def _read_policy(obj: Mapping[str, Any]) -> tuple[Policy | None, str, str]:
    try:
        return Policy.parse(obj), "", ""
    except InvalidResource as error:
        if not error.field.startswith("metadata.annotations"):
            return None, str(error), ""
        annotation_problem = str(error)
    except EdgefarmError as error:
        return None, str(error), ""
    policy, problem, _ = _read_policy({**obj, "metadata": _without_key_annotations(obj["metadata"])})
    return policy, problem, annotation_problem


def _without_key_annotations(meta: Mapping[str, Any]) -> dict[str, Any]:
    ours = (names.ANNOTATION_ROTATE_KEYS_AT, names.ANNOTATION_REVOKE_KEYS_BEFORE)
    return {**meta, "annotations": {key: value for key, value in meta["annotations"].items() if key not in ours}}


def _spec(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = obj.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def named_network(obj: Mapping[str, Any]) -> str | None:
    """What `spec.network` of a Policy, EdgeNetwork or Stream says, if it is text."""
    named = _spec(obj).get("network")
    return named if isinstance(named, str) else None


def selected_nodes(edge_network: Mapping[str, Any] | None) -> frozenset[str]:
    """Names of the nodes that an EdgeNetwork's status lists."""
    nodes = ((edge_network or {}).get("status") or {}).get("nodes") or ()
    return frozenset(node["name"] for node in nodes)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for item in value if isinstance(item, str))) if isinstance(value, list) else ()
