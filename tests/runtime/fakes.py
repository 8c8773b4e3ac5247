"""A tiny Kubernetes in memory, and helpers that wait for a condition."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jsonpatch
import structlog

from edgefarm.errors import Conflict, EdgefarmError, KubernetesRefused
from reconciler.ports import Kind, Object, WatchEvent

LOG: structlog.stdlib.BoundLogger = structlog.get_logger()


async def eventually(condition: Callable[[], Any], what: str = "", seconds: float = 10.0) -> None:
    """Return when `condition()` (or what it awaits) holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if inspect.isawaitable(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.005)


class FakeKube:
    """Implements `ports.Kube`. `fail` makes calls of a verb raise; `break_watches` ends all open watches."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, EdgefarmError] = {}
        self.silent = False
        self._objects: dict[tuple[str, str, str], Object] = {}
        self._version = 0
        self._watches: dict[str, list[asyncio.Queue[WatchEvent | EdgefarmError | None]]] = defaultdict(list)

    @property
    def writes(self) -> int:
        return sum(count for verb, count in self.calls.items() if verb not in ("get", "list", "watch"))

    @property
    def watching(self) -> int:
        return sum(map(len, self._watches.values()))

    def break_watches(self, error: EdgefarmError | None = None) -> None:
        for queues in self._watches.values():
            for queue in queues:
                queue.put_nowait(error)

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        self._begin("get")
        return copy.deepcopy(self._objects.get((kind.kind, namespace or "", name)))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        self._begin("list")
        found = [
            copy.deepcopy(obj)
            for (each, where, _), obj in sorted(self._objects.items())
            if each == kind.kind and namespace in (None, where)
        ]
        return found, str(self._version)

    async def watch(
        self, kind: Kind, namespace: str | None, resource_version: str, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        self._begin("watch")
        queue: asyncio.Queue[WatchEvent | EdgefarmError | None] = asyncio.Queue()
        if int(resource_version) < self._version and not self.silent:
            raise KubernetesRefused("too old resource version", 410)
        self._watches[kind.kind].append(queue)
        try:
            while (event := await queue.get()) is not None:
                if isinstance(event, EdgefarmError):
                    raise event
                yield event
        finally:
            self._watches[kind.kind].remove(queue)

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        self._begin("create")
        if self._key(kind, obj) in self._objects:
            raise Conflict("exists already")
        return self._store(kind, obj, "ADDED")

    async def replace(self, kind: Kind, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        self._begin("replace")
        old = self._objects[self._key(kind, obj)]
        if obj["metadata"].get("resourceVersion") not in (None, old["metadata"]["resourceVersion"]):
            raise Conflict("changed meanwhile")
        return self._store(kind, obj, "MODIFIED")

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
    ) -> Object:
        self._begin("patch")
        obj = self._objects.get((kind.kind, namespace or "", name))
        if obj is None:
            raise KubernetesRefused("not found", 404)
        if not isinstance(patch, Mapping):
            return self._store(kind, jsonpatch.apply_patch(obj, patch), "MODIFIED")
        version = (patch.get("metadata") or {}).get("resourceVersion")
        if version not in (None, obj["metadata"]["resourceVersion"]):
            raise Conflict("changed meanwhile")
        return self._store(kind, _merge(obj, patch), "MODIFIED")

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        self._begin("delete")
        obj = self._objects.pop((kind.kind, namespace or "", name), None)
        if obj is None:
            return False
        self._publish(kind, obj, "DELETED")
        return True

    def _begin(self, verb: str) -> None:
        self.calls[verb] += 1
        if verb in self.fail:
            raise self.fail[verb]

    def _key(self, kind: Kind, obj: Mapping[str, Any]) -> tuple[str, str, str]:
        return kind.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    def _store(self, kind: Kind, obj: Mapping[str, Any], event: str) -> Object:
        stored = copy.deepcopy(dict(obj))
        self._objects[self._key(kind, obj)] = stored
        self._publish(kind, stored, event)
        return copy.deepcopy(stored)

    def _publish(self, kind: Kind, obj: Object, event: str) -> None:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        if not self.silent:
            for queue in self._watches[kind.kind]:
                queue.put_nowait(WatchEvent(event, copy.deepcopy(obj)))


def _merge(old: Any, patch: Mapping[str, Any]) -> Any:
    merged = dict(old) if isinstance(old, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value) if isinstance(value, Mapping) else value
    return merged


@dataclass
class RecordedEvents:
    """Implements `context.Recorder`: type, name of the object, reason and message of each Event."""

    seen: list[tuple[str, str, str, str]] = field(default_factory=list)

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append(("Normal", about["metadata"]["name"], reason, message))

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append(("Warning", about["metadata"]["name"], reason, message))


def configmap(name: str = "a", namespace: str = "network", **data: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": namespace, "name": name},
        "data": data,
    }
