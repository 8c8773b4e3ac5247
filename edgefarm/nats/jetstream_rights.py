"""Owns what a Policy's users may ask of JetStream: to consume from streams what they may subscribe to, and no more.

A consumer's filter is part of the subject by which it is made (`$JS.API.CONSUMER.CREATE.<stream>.<consumer>.<filter>`),
so a permission can bound it. The older requests name the filter in the body only; they are allowed where everything
that a stream stores may be subscribed to. See https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from edgefarm.nats.subjects import covers, intersection, overlaps

#: The API as a client's own server offers it, and that of a named domain, which may be a leaf's.
_PREFIXES: Final = ("$JS.API", "$JS.*.API")


@dataclass(frozen=True)
class StoredSubjects:
    """A stream by its name in JetStream, and what it stores; of a linked stream that is what the other one stores."""

    stream: str
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class ConsumerRights:
    """Subjects that have to be added to what may be published. `withheld` are filters (`<stream>: <filter>`) that a
    server could only grant together with more."""

    allow: frozenset[str]
    withheld: frozenset[str]


def consumer_rights(
    allowsub: Collection[str], denysub: Collection[str], streams: Iterable[StoredSubjects], consumer: str
) -> ConsumerRights:
    """What must be allowed so that users can consume from `streams` exactly what they may subscribe to.

    Who may see only a part of a stream has one consumer there, whose name is `consumer`: NATS does not know whose a
    consumer is, so whoever may use any name can also read by the consumers of those who may see more.

    Streams of the same name in several domains count as one, because a client that asks its own server cannot tell
    them apart.
    """
    allow: set[str] = set()
    withheld: set[str] = set()
    for stream, subjects in _by_name(streams).items():
        if all(_may(subject, allowsub, denysub) for subject in subjects):
            own, requests = "*", list(_whole(stream))
        else:
            filters = {
                common
                for subject in subjects
                for allowed in allowsub
                if (common := intersection(allowed, subject)) and _may(common, allowsub, denysub)
            }
            wide = {common for common in filters if not _is_bounded(common, subjects, allowsub, denysub)}
            withheld |= {f"{stream}: {common}" for common in wide}
            own, requests = consumer, [f"CONSUMER.CREATE.{stream}.{consumer}.{common}" for common in filters - wide]
        if requests:
            allow |= {f"{prefix}.{request}" for prefix in _PREFIXES for request in (*requests, *_reading(stream, own))}
            allow |= {f"$JS.ACK.{stream}.{own}.>", f"$JS.FC.{stream}.{own}.>"}
    return ConsumerRights(frozenset(allow), frozenset(withheld))


def _by_name(streams: Iterable[StoredSubjects]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for stream in streams:
        found[stream.stream].update(stream.subjects)
    return found


def _may(subject: str, allowsub: Collection[str], denysub: Collection[str]) -> bool:
    """Whether all that the filter matches may be subscribed to."""
    return any(covers(allowed, subject) for allowed in allowsub) and not any(
        overlaps(deny, subject) for deny in denysub
    )


def _is_bounded(common: str, subjects: Collection[str], allowsub: Collection[str], denysub: Collection[str]) -> bool:
    """Whether the permission for this filter cannot be used for a wider one.

    To a server the `>` of a request is a word like any other, which the `*` of a permission matches: who may ask for
    `a.*` may ask for `a.>`. That does no harm where the stream stores nothing else below.
    """
    if common.split(".")[-1] != "*":
        return True
    excess = f"{common[:-1]}>"
    reached = (intersection(excess, subject) for subject in subjects)
    return all(_may(more, allowsub, denysub) for more in reached if more is not None)


def _whole(stream: str) -> Iterator[str]:
    """Requests that make consumers of a whole stream, in the forms of all clients."""
    yield f"CONSUMER.CREATE.{stream}"
    yield f"CONSUMER.CREATE.{stream}.>"
    yield f"CONSUMER.DURABLE.CREATE.{stream}.*"
    yield f"STREAM.INFO.{stream}"


def _reading(stream: str, consumer: str) -> Iterator[str]:
    """What a consumer is used with, once it exists; STREAM.NAMES is how clients find the stream of a subject."""
    yield f"CONSUMER.INFO.{stream}.{consumer}"
    yield f"CONSUMER.MSG.NEXT.{stream}.{consumer}"
    yield "STREAM.NAMES"
