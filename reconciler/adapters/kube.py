"""The verbs of the Kubernetes API in raw JSON; implements `reconciler.ports.Kube` and `TokenReviews`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, Final

import aiohttp
from kubernetes.aio.client.rest import RESTResponse

from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from reconciler.adapters.kubetransport import Call, RequestHook, Transport, describe, error_of
from reconciler.ports import TOKEN_REVIEW, Kind, Object, WatchEvent
from reconciler.settings import KubernetesSettings

#: The server ends a watch after so many seconds; one that has not ended somewhat later is dead.
WATCH_SECONDS: Final = 120
_PAGE: Final = 500
_READS: Final = frozenset({"get", "list", "watch", "review"})
_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"
_Objects = list[Object]


class KubeClient:
    """A client of one API server. It must be closed."""

    def __init__(self, transport: Transport, *, watch_seconds: int = WATCH_SECONDS) -> None:
        self._transport = transport
        self._watch_seconds = watch_seconds

    @classmethod
    async def connect(
        cls,
        settings: KubernetesSettings,
        *,
        watch_seconds: int = WATCH_SECONDS,
        on_request: RequestHook | None = None,
    ) -> KubeClient:
        """A client with the pod's service account, else with the kubeconfig file; SettingsError names what is wrong.

        Nothing is sent yet.
        """
        return cls(await Transport.open(settings, on_request), watch_seconds=watch_seconds)

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """How many requests were sent, by (verb, kind)."""
        return self._transport.requests

    @property
    def writes(self) -> int:
        """How many requests so far could have changed something."""
        return sum(count for (verb, _), count in self.requests.items() if verb not in _READS)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object, or None when there is none of that name."""
        try:
            return await self._transport.request(Call("get", kind, kind.path(namespace, name)))
        except KubernetesRefused as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """All objects and the list's resourceVersion, in pages; a list that expires between pages is read again."""
        query = _selectors(labels, fields)
        try:
            return await self._pages(kind, kind.path(namespace), {**query, "limit": str(_PAGE)})
        except KubernetesRefused as error:
            if error.status != 410:
                raise
            return await self._pages(kind, kind.path(namespace), query)

    async def watch(
        self, kind: Kind, namespace: str | None, resource_version: str, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes since `resource_version`, until the server ends the watch after a while (that is normal).

        KubernetesUnavailable when the connection breaks or went quiet, KubernetesRefused(410) when the version is gone.
        """
        query = {
            **_selectors(labels, fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(self._watch_seconds),
        }
        call = Call("watch", kind, kind.path(namespace), query, seconds=self._watch_seconds * 1.1 + 2)
        response = await self._transport.send(call)
        try:
            if response.status >= 400:
                raise error_of(response.status, await response.read())
            async for line in _lines(response.response.content.iter_any()):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise error_of(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubernetesUnavailable(f"The watch of {kind.plural} broke: {describe(error)}.") from error
        finally:
            _hang_up(response)

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        """Create an object; Conflict when it exists already."""
        path = kind.path(obj["metadata"].get("namespace"))
        return await self._transport.request(Call("create", kind, path, body=dict(obj)))

    async def replace(self, kind: Kind, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        """Replace an object (or a subresource of it); Conflict when its resourceVersion is stale."""
        metadata = obj["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._transport.request(Call("replace", kind, path, body=dict(obj)))

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str | None = None,
    ) -> Object:
        """JSON merge patch for a mapping, JSON patch for a sequence."""
        path = kind.path(namespace, name, subresource)
        if isinstance(patch, Mapping):
            call = Call("patch", kind, path, body=dict(patch), content_type=_MERGE_PATCH)
        else:
            call = Call("patch", kind, path, body=list(patch), content_type=_JSON_PATCH)
        return await self._transport.request(call)

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        """False when it did not exist; Conflict when it is not the object of that uid any more."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._transport.request(Call("delete", kind, kind.path(namespace, name), body=body))
        except KubernetesRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def review_token(self, token: str, audiences: Sequence[str]) -> Object:
        """What the API server says about a token that is shown for one of these audiences: a TokenReview's status.

        Nothing is stored, and no error repeats the token.
        """
        body = {
            "apiVersion": TOKEN_REVIEW.api_version,
            "kind": TOKEN_REVIEW.kind,
            "spec": {"token": token, "audiences": list(audiences)},
        }
        answer = await self._transport.request(Call("review", TOKEN_REVIEW, TOKEN_REVIEW.path(), body=body))
        return dict(answer.get("status") or {})

    async def _pages(self, kind: Kind, path: str, query: Mapping[str, str]) -> tuple[_Objects, str]:
        items: _Objects = []
        position: dict[str, str] = {}
        while True:
            page = await self._transport.request(Call("list", kind, path, {**query, **position}))
            for item in page.get("items") or ():
                # Items of built-in lists do not say what they are; whoever reads one later wants to know.
                items.append({"apiVersion": kind.api_version, "kind": kind.kind, **item})
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            position = {"continue": metadata["continue"]}


def _hang_up(response: RESTResponse) -> None:
    """End a stream at once: a connection that went quiet would not answer TLS's polite goodbye either."""
    connection = response.response.connection  # None when the server has ended the stream
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.response.close()


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {name: value for name, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines of any length: aiohttp's own line reader refuses objects above its buffer size."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
