"""Informers: a local copy of Kubernetes objects that stays fresh, and calls for every change."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import structlog

from edgefarm.errors import EdgefarmError, KubernetesRefused
from reconciler.context import Indexer
from reconciler.ports import Kind, Kube, Object
from reconciler.queue import Backoff

#: Called with the old and the new object; one of them is None when it appeared or went away.
Handler = Callable[[Object | None, Object | None], None]
ObjectKey = tuple[str, str]
#: What the API server answers about a kind that it does not know, or that we may not see.
_NOT_OFFERED: Final = (403, 404)


@dataclass(frozen=True)
class Source:
    """What an informer watches."""

    kind: Kind
    namespace: str | None = None
    labels: str = ""
    fields: str = ""


@dataclass(frozen=True)
class Timing:
    """`relist`: seconds after which everything is listed again, in case a watch lost something unnoticed.

    A watch that ends sooner than `shortest_watch` seconds and brought nothing counts as a failure. After `patience`
    failures in a row everything is listed again as well. `absent`: how long until an optional kind that is not offered
    is looked for again.
    """

    relist: float = 1800.0
    absent: float = 30.0
    shortest_watch: float = 1.0
    patience: int = 3
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=30.0))


class ObjectStore:
    """What an informer has seen; the `Store` that controllers read."""

    def __init__(self) -> None:
        #: Why the API server does not offer the kind at all.
        self.problem = ""
        self._objects: dict[ObjectKey, Object] = {}
        self._indexers: dict[str, Indexer] = {}
        self._indexes: dict[str, dict[str, set[ObjectKey]]] = {}

    def get(self, namespace: str | None, name: str) -> Object | None:
        return self._objects.get((namespace or "", name))

    def list(self, namespace: str | None = None) -> Sequence[Object]:
        """All objects, of one namespace when it is given; sorted by namespace and name."""
        return [obj for key, obj in sorted(self._objects.items(), key=_first) if namespace in (None, key[0])]

    def by_index(self, index: str, value: str) -> Sequence[Object]:
        """Objects that the index files under `value`; sorted likewise."""
        return [self._objects[key] for key in sorted(self._indexes[index].get(value, ()))]

    def keys(self) -> set[ObjectKey]:
        return set(self._objects)

    def add_index(self, name: str, indexer: Indexer) -> None:
        """Offer `by_index(name, …)`; a second index of that name must be the same one."""
        if self._indexers.setdefault(name, indexer) is not indexer:
            raise ValueError(f"two different indexes are called {name!r}")
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            self._file(name, key, indexer(obj))

    def put(self, obj: Object) -> Object | None:
        """Store an object; return the one it replaces."""
        key = object_key(obj)
        old = self._objects.get(key)
        self._unfile(key, old)
        self._objects[key] = obj
        for name, indexer in self._indexers.items():
            self._file(name, key, indexer(obj))
        return old

    def remove(self, key: ObjectKey) -> Object | None:
        """Forget an object; return it."""
        old = self._objects.pop(key, None)
        self._unfile(key, old)
        return old

    def _file(self, name: str, key: ObjectKey, values: Iterable[str]) -> None:
        for value in values:
            self._indexes[name].setdefault(value, set()).add(key)

    def _unfile(self, key: ObjectKey, old: Object | None) -> None:
        if old is None:
            return
        for name, indexer in self._indexers.items():
            for value in indexer(old):
                keys = self._indexes[name].get(value, set())
                keys.discard(key)
                if not keys:
                    self._indexes[name].pop(value, None)


class Informer:
    """Lists, then watches; whatever breaks is mended by watching on, or by listing again when the version is gone."""

    def __init__(
        self, kube: Kube, source: Source, *, log: structlog.stdlib.BoundLogger, timing: Timing | None = None
    ) -> None:
        self.source = source
        self.store = ObjectStore()
        #: Set once the first list is in the store, and while nobody needs it.
        self.synced = asyncio.Event()
        self._kube = kube
        self._log = log.bind(kind=source.kind.kind)
        self._timing = timing or Timing()
        self._handlers: list[Handler] = []
        self._needs: list[Callable[[], bool]] = []
        self._followed = asyncio.Event()
        self._version: str | None = None
        self._listed_at = 0.0

    def add_handler(self, handler: Handler) -> None:
        """Call `handler(old, new)` for every change from now on."""
        self._handlers.append(handler)

    def add_need(self, needed: Callable[[], bool]) -> None:
        """Ask `needed`, too, whether anybody needs the objects. Without any they are always needed."""
        self._needs.append(needed)

    def reconsider(self) -> None:
        """Begin to follow the objects if somebody needs them now; `run` itself notices when nobody does any more."""
        if self._is_needed() and not self._followed.is_set():
            self.synced.clear()
            self._followed.set()

    async def run(self) -> None:
        """Keep the store fresh until cancelled, while anybody needs it."""
        failures = 0
        while True:
            await self._until_needed()
            try:
                if self._version is None or self._now() - self._listed_at >= self._timing.relist:
                    await self._list()
                if await self._watch():
                    failures = 0
                    continue
                reason = "the watch ended at once"
            except KubernetesRefused as error:
                if self.source.kind.optional and error.status in _NOT_OFFERED:
                    self._do_without(str(error))
                    await asyncio.sleep(self._timing.absent)
                    continue
                if error.status == 410:
                    self._version = None
                reason = str(error)
            except EdgefarmError as error:
                reason = str(error)
            failures += 1
            if failures >= self._timing.patience:
                self._version = None  # perhaps it means nothing to the server any more, whatever it calls that
            delay = self._timing.backoff.delay(failures, random.random())  # noqa: S311 (spreads retries, no secret)
            self._log.log(_level(failures), "watch interrupted", reason=reason, retry_seconds=round(delay, 1))
            await asyncio.sleep(delay)

    def _is_needed(self) -> bool:
        return not self._needs or any(needed() for needed in self._needs)

    async def _until_needed(self) -> None:
        """Return at once when somebody needs the objects; otherwise know none, and keep nobody waiting, until then."""
        if self._is_needed():
            self._followed.set()
            return
        self._followed.clear()
        self.store.problem = ""
        self._forget()
        self.synced.set()
        await self._followed.wait()

    async def _list(self) -> None:
        source = self.source
        objects, version = await self._kube.list(
            source.kind, source.namespace, labels=source.labels, fields=source.fields
        )
        gone = self.store.keys() - {object_key(obj) for obj in objects}
        for key in gone:
            self._notify(self.store.remove(key), None)
        for obj in objects:
            self._put(obj)
        self._version = version
        self._listed_at = self._now()
        self.store.problem = ""
        self.synced.set()

    def _do_without(self, problem: str) -> None:
        """The kind is optional and not there (any more), or not for us: that is told once, and waits for nobody."""
        if not self.store.problem:
            self._log.info("the kind is not offered, and looked for again from time to time", reason=problem)
        self.store.problem = problem
        self._forget()
        self.synced.set()

    def _forget(self) -> None:
        self._version = None
        for key in sorted(self.store.keys()):
            self._notify(self.store.remove(key), None)

    async def _watch(self) -> bool:
        """Follow one watch to its end; False when it ended at once without having brought anything."""
        source, started, brought = self.source, self._now(), False
        assert self._version is not None
        watch = self._kube.watch(
            source.kind, source.namespace, self._version, labels=source.labels, fields=source.fields
        )
        async with aclosing(watch) as events:
            async for event in events:
                brought = True
                if event.type == "DELETED":
                    self._notify(self.store.remove(object_key(event.object)), None)
                elif event.type != "BOOKMARK":
                    self._put(event.object)
                self._version = event.object["metadata"]["resourceVersion"]
        return brought or self._now() - started >= self._timing.shortest_watch

    def _put(self, obj: Object) -> None:
        obj["metadata"].pop("managedFields", None)  # often larger than the rest, and read by nobody here
        for member in self.source.kind.unread:
            obj.pop(member, None)
        old = self.store.put(obj)
        if old is None or old["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion"):
            self._notify(old, obj)

    def _notify(self, old: Object | None, new: Object | None) -> None:
        if old is None and new is None:
            return
        for handler in self._handlers:
            try:
                handler(old, new)
            except Exception:  # noqa: BLE001 (boundary: one controller's bug must not blind the others)
                self._log.exception("a handler of object changes failed")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def object_key(obj: Object) -> ObjectKey:
    """Namespace (empty for cluster-scoped objects) and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _first(item: tuple[ObjectKey, Object]) -> ObjectKey:
    return item[0]


def _level(failures: int) -> int:
    """A single interruption is daily life; several in a row are worth a warning."""
    return 30 if failures > 2 else 20
