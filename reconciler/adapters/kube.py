"""The Kubernetes API in raw JSON; the only importer of the official client. Implements `reconciler.ports.Kube`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import load_kube_config

from edgefarm import __version__
from edgefarm.errors import Conflict, EdgefarmError, KubernetesRefused, KubernetesUnavailable, SettingsError
from reconciler.ports import Kind, Object, WatchEvent
from reconciler.settings import KubernetesSettings

_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, connect=5)
#: The server ends a watch after so many seconds; one that has not ended somewhat later is dead.
WATCH_SECONDS: Final = 120
_PAGE: Final = 500
_Objects = list[Object]
#: Called with the verb and the kind of every request that is sent.
RequestHook = Callable[[str, str], None]
_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "replace": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
_READS: Final = frozenset({"get", "list", "watch"})
_MERGE_PATCH: Final = "application/merge-patch+json"
_JSON_PATCH: Final = "application/json-patch+json"


class TokenFile:
    """A projected service account token; the kubelet replaces the file long before the token expires."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """The token as it is in the file now; KubernetesUnavailable when there is none."""
        try:
            stat = self._path.stat()
            if self._seen != (stat.st_mtime_ns, stat.st_ino):
                self._token = self._path.read_text().strip()
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except OSError as error:
            raise KubernetesUnavailable(f"The service account token cannot be read: {error}") from error
        return self._token


class KubeClient:
    """One connection pool to one API server.

    `requests` counts what was sent by (verb, kind).
    """

    def __init__(
        self,
        configuration: Configuration,
        token: TokenFile | None = None,
        *,
        watch_seconds: int = WATCH_SECONDS,
        on_request: RequestHook | None = None,
    ) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._token = token
        self._watch_seconds = watch_seconds
        self._on_request = on_request

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
        configuration = Configuration()
        token: TokenFile | None = None
        if settings.service_account_dir is not None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            configuration.host = f"https://{host}:{settings.port}"
            configuration.ssl_ca_cert = str(settings.service_account_dir / "ca.crt")
            token = TokenFile(settings.service_account_dir / "token")
        else:
            try:
                await load_kube_config(str(settings.kubeconfig), client_configuration=configuration)
            except Exception as error:  # the loader raises whatever a malformed file makes it trip over
                raise SettingsError([f"KUBECONFIG cannot be used: {error}"]) from error
        try:
            return cls(configuration, token, watch_seconds=watch_seconds, on_request=on_request)
        except OSError as error:
            raise SettingsError(
                [f"The certificate authority of the API server ({configuration.ssl_ca_cert}) cannot be read: {error}"]
            ) from error

    @property
    def writes(self) -> int:
        """How many requests so far could have changed something."""
        return sum(count for (verb, _), count in self.requests.items() if verb not in _READS)

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object, or None when there is none of that name."""
        try:
            return await self._request("get", kind, kind.path(namespace, name))
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
        timeout = aiohttp.ClientTimeout(total=self._watch_seconds * 1.1 + 2, connect=5)
        response = await self._send("watch", kind, kind.path(namespace), query=query, timeout=timeout)
        try:
            if response.status >= 400:
                raise _error(response.status, await response.read())
            async for line in _lines(response.response.content.iter_any()):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(int(event["object"].get("code") or 500), json.dumps(event["object"]).encode())
                yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise KubernetesUnavailable(f"The watch of {kind.plural} broke: {_describe(error)}.") from error
        finally:
            response.response.close()

    async def create(self, kind: Kind, obj: Mapping[str, Any]) -> Object:
        """Create an object; Conflict when it exists already."""
        return await self._request("create", kind, kind.path(obj["metadata"].get("namespace")), body=dict(obj))

    async def replace(self, kind: Kind, obj: Mapping[str, Any], *, subresource: str | None = None) -> Object:
        """Replace an object (or a subresource of it); Conflict when its resourceVersion is stale."""
        metadata = obj["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._request("replace", kind, path, body=dict(obj))

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
        merge = isinstance(patch, Mapping)
        return await self._request(
            "patch",
            kind,
            kind.path(namespace, name, subresource),
            body=dict(patch) if isinstance(patch, Mapping) else list(patch),
            content_type=_MERGE_PATCH if merge else _JSON_PATCH,
        )

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str | None = None) -> bool:
        """False when it did not exist; Conflict when it is not the object of that uid any more."""
        body: Object = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("delete", kind, kind.path(namespace, name), body=body)
        except KubernetesRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def _pages(self, kind: Kind, path: str, query: Mapping[str, str]) -> tuple[_Objects, str]:
        items: _Objects = []
        position: dict[str, str] = {}
        while True:
            page = await self._request("list", kind, path, query={**query, **position})
            for item in page.get("items") or ():
                # Items of built-in lists do not say what they are; whoever reads one later wants to know.
                items.append({"apiVersion": kind.api_version, "kind": kind.kind, **item})
            metadata = page.get("metadata", {})
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            position = {"continue": metadata["continue"]}

    async def _request(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        response = await self._send(verb, kind, path, query=query, body=body, content_type=content_type)
        try:
            data = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            response.response.release()
        if response.status >= 400:
            raise _error(response.status, data)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise KubernetesUnavailable("The Kubernetes API answered something that is not JSON.") from error
        return dict(answer)

    async def _send(
        self,
        verb: str,
        kind: Kind,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 (it is the client's own, for connect and total)
    ) -> RESTResponse:
        self.requests[verb, kind.kind] += 1
        if self._on_request is not None:
            self._on_request(verb, kind.kind)
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {
            "Accept": "application/json",
            "Content-Type": content_type,
            "User-Agent": f"edgefarm-network/{__version__}",
            **await self._authorization(),
        }
        try:
            return await self._rest.request(_METHODS[verb], url, headers=headers, body=body, _request_timeout=timeout)
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    async def _authorization(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token.read()}"}
        bearer = (await self._configuration.auth_settings()).get("BearerToken")
        return {"Authorization": bearer["value"]} if bearer and bearer["value"] else {}

    def _unreachable(self, error: Exception) -> KubernetesUnavailable:
        return KubernetesUnavailable(
            f"The Kubernetes API at {self._configuration.host} cannot be reached: {_describe(error)}."
        )


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


def _error(status: int, data: bytes) -> EdgefarmError:
    """The API server's answer as one of our errors, with its own message."""
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode(errors="replace").strip() or f"status {status}"
    if status == 409:
        return Conflict(f"Kubernetes: {message}")
    if status == 429 or status >= 500:
        return KubernetesUnavailable(f"Kubernetes cannot serve now (status {status}): {message}")
    return KubernetesRefused(f"Kubernetes refused (status {status}): {message}", status)


def _describe(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
