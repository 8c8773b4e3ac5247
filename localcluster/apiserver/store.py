"""Objects by bucket, one global resourceVersion, a bounded history and the watchers' queues. No rules of Kubernetes."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import orjson

from localcluster.apiserver.resources import Bucket

Json = dict[str, Any]
#: Changes kept per bucket; a watch that asks for older ones gets 410.
HISTORY: Final = 4096


@dataclass(frozen=True)
class Stored:
    """One state of one object. `raw` is its JSON; never change `content`: take a `copy()`."""

    content: Json
    raw: bytes
    version: int

    def copy(self) -> Json:
        return cast(Json, orjson.loads(self.raw))


@dataclass(frozen=True)
class Change:
    """ADDED, MODIFIED or DELETED at `version`; `previous` is the state before, None when there was none."""

    version: int
    type: str
    current: Stored
    previous: Stored | None


class TooOld(Exception):
    """The history no longer reaches back to the version asked for."""


class Changed(Exception):
    """The object is not in the expected state any more."""


class Store:
    """All state of the cluster. Used from one event loop only."""

    def __init__(self, history: int = HISTORY) -> None:
        self.version = 1
        self._objects: dict[Bucket, dict[tuple[str, str], Stored]] = defaultdict(dict)
        self._history: dict[Bucket, deque[Change]] = defaultdict(lambda: deque(maxlen=history))
        self._changed: dict[Bucket, int] = {}
        self._forgotten: dict[Bucket, int] = defaultdict(int)
        self._queues: dict[Bucket, set[asyncio.Queue[Change | None]]] = defaultdict(set)

    def get(self, bucket: Bucket, namespace: str, name: str) -> Stored | None:
        return self._objects[bucket].get((namespace, name))

    def select(self, bucket: Bucket, namespace: str = "") -> list[Stored]:
        """All objects, or those of one namespace, ordered by namespace and name."""
        objects = self._objects[bucket]
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def buckets(self) -> list[Bucket]:
        return [bucket for bucket, objects in self._objects.items() if objects]

    def last_change(self, bucket: Bucket) -> int:
        """The version of the last write to a bucket; 0 when there was none."""
        return self._changed.get(bucket, 0)

    def put(self, bucket: Bucket, content: Json, expected: Stored | None) -> Stored:
        """Write when the object still is what `expected` says (None: absent); else raise Changed."""
        metadata = content["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        previous = self._objects[bucket].get(key)
        if previous is not expected:
            raise Changed
        current = self._next(content)
        self._objects[bucket][key] = current
        self._publish(bucket, Change(current.version, "MODIFIED" if previous else "ADDED", current, previous))
        return current

    def remove(self, bucket: Bucket, expected: Stored, last: Json | None = None) -> Stored:
        """Remove an object that still is `expected`; its last state (`last` when it differs) is published."""
        metadata = expected.content["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        if self._objects[bucket].get(key) is not expected:
            raise Changed
        current = self._next(last if last is not None else expected.copy())
        del self._objects[bucket][key]
        self._publish(bucket, Change(current.version, "DELETED", current, expected))
        return current

    def changes_since(self, bucket: Bucket, version: int) -> list[Change]:
        """Every change after `version`; TooOld when some of them are forgotten."""
        if version < self._forgotten[bucket]:
            raise TooOld
        return [change for change in self._history[bucket] if change.version > version]

    @contextmanager
    def subscribe(self, bucket: Bucket) -> Iterator[asyncio.Queue[Change | None]]:
        """Changes from now on; None means that the server stops."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._queues[bucket].add(queue)
        try:
            yield queue
        finally:
            self._queues[bucket].discard(queue)

    def end_watches(self, bucket: Bucket | None = None) -> None:
        """Tell the watchers (of one bucket, or all) to finish."""
        for key, queues in self._queues.items():
            if bucket in (None, key):
                for queue in queues:
                    queue.put_nowait(None)

    def _next(self, content: Json) -> Stored:
        self.version += 1
        content["metadata"]["resourceVersion"] = str(self.version)
        return Stored(content, orjson.dumps(content), self.version)

    def _publish(self, bucket: Bucket, change: Change) -> None:
        self._changed[bucket] = change.version
        history = self._history[bucket]
        if len(history) == history.maxlen:
            self._forgotten[bucket] = history[0].version
        history.append(change)
        for queue in self._queues[bucket]:
            queue.put_nowait(change)
