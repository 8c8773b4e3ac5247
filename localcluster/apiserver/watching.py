"""Lists and watches: selection, paging, resourceVersion semantics, bookmarks and the watch protocol's events."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from localcluster.apiserver.failures import ApiError, bad_request, expired
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.selectors import Predicate, field_predicate, label_predicate
from localcluster.apiserver.store import Change, Json, Store, Stored, TooOld

#: Seconds between bookmarks of a quiet watch; Kubernetes sends about one a minute.
BOOKMARK_SECONDS: Final = 15.0
#: Shows one stored object to the client (its version, a Table row, metadata only) as JSON.
Render = Callable[[Stored], bytes]


@dataclass(frozen=True)
class Selection:
    """Which objects a list or watch is about."""

    resource: Resource
    namespace: str
    predicate: Predicate

    @classmethod
    def parse(cls, resource: Resource, namespace: str, query: Mapping[str, str], name: str = "") -> Selection:
        """From the query parameters; 400 for selectors that cannot be read."""
        tests = []
        if query.get("labelSelector"):
            tests.append(label_predicate(query["labelSelector"]))
        fields = ",".join(filter(None, (query.get("fieldSelector"), f"metadata.name={name}" if name else "")))
        if fields:
            tests.append(field_predicate(fields, resource))
        return cls(resource, namespace, lambda obj: all(test(obj) for test in tests))

    def matches(self, stored: Stored) -> bool:
        in_namespace = not self.namespace or stored.content["metadata"].get("namespace") == self.namespace
        return in_namespace and self.predicate(stored.content)


@dataclass(frozen=True)
class Page:
    """One page of a list with its ListMeta."""

    items: list[Stored]
    metadata: Json


def list_page(store: Store, selection: Selection, query: Mapping[str, str]) -> Page:
    """The objects asked for; 410 for a continue token whose time is over, 504 for a version still to come."""
    version, start = store.version, None
    if query.get("continue"):
        version, start = _continue_token(query["continue"])
        try:
            store.changes_since(selection.resource.bucket, version)
        except TooOld:
            raise expired("The provided continue parameter is too old to display a consistent list result.") from None
    elif _number(query, "resourceVersion") > store.version:
        message = f"Too large resource version: {query['resourceVersion']}, current: {store.version}"
        raise ApiError(504, "Timeout", f"Timeout: {message}", {"retryAfterSeconds": 1})
    found = store.select(selection.resource.bucket, selection.namespace)
    found = [stored for stored in found if selection.matches(stored)]
    if start is not None:
        found = [stored for stored in found if _key(stored) > start]
    limit = _number(query, "limit")
    metadata: Json = {"resourceVersion": str(version)}
    if limit and len(found) > limit:
        rest, found = len(found) - limit, found[:limit]
        token = orjson.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": _key(found[-1])})
        metadata["continue"] = base64.urlsafe_b64encode(token).decode().rstrip("=")
        if not (query.get("labelSelector") or query.get("fieldSelector")):
            metadata["remainingItemCount"] = rest
    return Page(found, metadata)


@dataclass(frozen=True)
class WatchOptions:
    """What a watch request asks for besides the selection."""

    version: str
    bookmarks: bool
    initial_events: bool
    timeout: float
    bookmark_seconds: float

    @classmethod
    def parse(cls, query: Mapping[str, str], bookmark_seconds: float) -> WatchOptions:
        timeout = _number(query, "timeoutSeconds")
        _number(query, "resourceVersion")
        wants_initial = query.get("sendInitialEvents", "").lower() in ("true", "1")
        bookmarks = query.get("allowWatchBookmarks", "").lower() in ("true", "1")
        return cls(query.get("resourceVersion", ""), bookmarks, wants_initial, timeout or 3600, bookmark_seconds)


async def watch(store: Store, selection: Selection, options: WatchOptions, render: Render) -> AsyncIterator[bytes]:
    """The lines of a watch; ends after the timeout, when the server stops, or after an ERROR event."""
    bucket = selection.resource.bucket
    with store.subscribe(bucket) as queue:
        # From here on nothing is awaited until the backlog is taken, so that no change is missed or sent twice.
        try:
            backlog, initial = _backlog(store, selection, options)
        except TooOld:
            error = expired(f"too old resource version: {options.version} ({store.version})").status()
            yield _line("ERROR", orjson.dumps(error))
            return
        seen = store.version
        for stored in initial:
            yield _line("ADDED", render(stored))
        if options.initial_events and options.bookmarks:
            yield _bookmark(selection.resource, seen, initial_end=True)
        for change in backlog:
            line = _event(selection, change, render)
            if line:
                yield line
        end = asyncio.get_running_loop().time() + options.timeout
        while (left := end - asyncio.get_running_loop().time()) > 0:
            try:
                async with asyncio.timeout(min(left, options.bookmark_seconds)):
                    change_or_end = await queue.get()
            except TimeoutError:
                # The queue was empty just now, so everything up to the present version has been sent.
                if options.bookmarks and queue.empty():
                    yield _bookmark(selection.resource, store.version)
                continue
            if change_or_end is None:
                return
            line = _event(selection, change_or_end, render)
            if line:
                yield line


def _backlog(store: Store, selection: Selection, options: WatchOptions) -> tuple[list[Change], list[Stored]]:
    bucket = selection.resource.bucket
    if options.initial_events or options.version in ("", "0"):
        return [], [s for s in store.select(bucket, selection.namespace) if selection.matches(s)]
    return store.changes_since(bucket, int(options.version)), []


def _event(selection: Selection, change: Change, render: Render) -> bytes:
    """The line for one change; empty when this watch does not see it."""
    before = change.previous is not None and selection.matches(change.previous)
    after = change.type != "DELETED" and selection.matches(change.current)
    if after:
        return _line("MODIFIED" if before else "ADDED", render(change.current))
    if not before:
        return b""
    if change.type == "DELETED":
        return _line("DELETED", render(change.current))
    assert change.previous is not None
    # It left the selection: the client gets the state that it knew, at the version of the change.
    last = change.previous.copy()
    last["metadata"]["resourceVersion"] = str(change.version)
    return _line("DELETED", render(Stored(last, orjson.dumps(last), change.version)))


def _line(kind: str, obj: bytes) -> bytes:
    return b'{"type":"' + kind.encode() + b'","object":' + obj + b"}\n"


def _bookmark(resource: Resource, version: int, *, initial_end: bool = False) -> bytes:
    metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return _line("BOOKMARK", orjson.dumps(obj))


def _continue_token(text: str) -> tuple[int, tuple[str, str]]:
    try:
        token: Any = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        namespace, name = token["start"]
        return int(token["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request("continue key is not valid") from error


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdecimal() or len(text) > 19:
        raise bad_request(f'invalid {name}: "{text}" is not a whole number')
    return int(text)


def _key(stored: Stored) -> tuple[str, str]:
    metadata = stored.content["metadata"]
    return (metadata.get("namespace", ""), metadata["name"])
