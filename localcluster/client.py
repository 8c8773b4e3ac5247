"""A small asyncio client for the Kubernetes API that keeps objects raw JSON; for controllers, tests and the demo."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from edgefarm.errors import Conflict, EdgefarmError, KubernetesRefused, KubernetesUnavailable
from localcluster.connection import Connection

Json = dict[str, Any]
Objects = list[Json]


@dataclass(frozen=True)
class Resource:
    """One kind of object as the API's paths name it."""

    api_version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        parts = ["api" if "/" not in self.api_version else "apis", self.api_version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)


PODS: Final = Resource("v1", "pods")
NODES: Final = Resource("v1", "nodes")
NAMESPACES: Final = Resource("v1", "namespaces")
SECRETS: Final = Resource("v1", "secrets")
CONFIG_MAPS: Final = Resource("v1", "configmaps")
SERVICE_ACCOUNTS: Final = Resource("v1", "serviceaccounts")
SERVICES: Final = Resource("v1", "services")
PERSISTENT_VOLUME_CLAIMS: Final = Resource("v1", "persistentvolumeclaims")
EVENTS: Final = Resource("v1", "events")
DEPLOYMENTS: Final = Resource("apps/v1", "deployments")
REPLICA_SETS: Final = Resource("apps/v1", "replicasets")
STATEFUL_SETS: Final = Resource("apps/v1", "statefulsets")
DAEMON_SETS: Final = Resource("apps/v1", "daemonsets")
JOBS: Final = Resource("batch/v1", "jobs")
POD_DISRUPTION_BUDGETS: Final = Resource("policy/v1", "poddisruptionbudgets")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io/v1", "endpointslices")
CUSTOM_RESOURCE_DEFINITIONS: Final = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30)
#: A watch is asked for at most this long (seconds); then the informer lists again.
WATCH_SECONDS: Final = 240


class Client:
    """Talks to one API server; an async context manager.

    Raises KubernetesRefused (4xx, with `status`), Conflict (409) and KubernetesUnavailable (no answer, 429, 5xx).
    """

    def __init__(self, connection: Connection, *, user_agent: str = "localcluster") -> None:
        self.connection = connection
        self._headers = {"User-Agent": user_agent, "Accept": "application/json"}
        if connection.token:
            self._headers["Authorization"] = f"Bearer {connection.token}"
        self._session: aiohttp.ClientSession | None = None
        self._kinds: dict[tuple[str, str], tuple[Resource, bool]] = {}

    @classmethod
    def from_kubeconfig(cls, path: Path | str, *, user_agent: str = "localcluster") -> Self:
        return cls(Connection.from_kubeconfig(Path(path)), user_agent=user_agent)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.connection.ssl_context(), limit=0)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()
        await asyncio.sleep(0)  # lets aborted transports close their sockets

    # -- plain verbs -------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Json:
        return await self.request("GET", resource.path(namespace, name))

    async def find(self, resource: Resource, name: str, namespace: str = "") -> Json | None:
        """Like `get`; None where there is no such object."""
        try:
            return await self.get(resource, name, namespace)
        except KubernetesRefused as error:
            if error.status == 404:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> tuple[Objects, str]:
        """All objects (of all namespaces when none is given) and the collection's resourceVersion."""
        answer = await self.request("GET", resource.path(namespace), params=_selectors(labels, fields))
        # The items of a list do not repeat what they are.
        what = {"apiVersion": resource.api_version, "kind": str(answer.get("kind", "")).removesuffix("List")}
        items = [{**what, **item} for item in answer.get("items") or []]
        return items, str(answer.get("metadata", {}).get("resourceVersion", ""))

    async def create(
        self, resource: Resource, obj: Json, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Json:
        """POST an object, or a subresource (`binding`, `token`) of the object `name`."""
        return await self.request("POST", resource.path(namespace, name, subresource), body=obj)

    async def replace(
        self, resource: Resource, name: str, obj: Json, namespace: str = "", *, subresource: str = ""
    ) -> Json:
        return await self.request("PUT", resource.path(namespace, name, subresource), body=obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Json | Objects,
        namespace: str = "",
        *,
        subresource: str = "",
    ) -> Json:
        """JSON Patch when `patch` is a list, else JSON Merge Patch."""
        content_type = JSON_PATCH if isinstance(patch, list) else MERGE_PATCH
        return await self.request(
            "PATCH", resource.path(namespace, name, subresource), body=patch, content_type=content_type
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete in the background; False when it is gone already, or when `uid` is given and names another object."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self.request("DELETE", resource.path(namespace, name), body=options)
        except KubernetesRefused as error:
            if error.status == 404:
                return False
            raise
        except Conflict:
            if not uid:
                raise
            return False
        return True

    async def watch(
        self, resource: Resource, resource_version: str, namespace: str = "", *, fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        """Yield (type, object) until the server ends the watch; an ERROR event raises KubernetesRefused."""
        params = {
            **_selectors("", fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SECONDS + 15)
        try:
            async with self._open().get(
                self.connection.server + resource.path(namespace), params=params, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise _failure(response.status, await response.read(), f"watch of {resource.plural}")
                try:
                    async for event in _events(response):
                        yield event
                finally:
                    # Without TLS' farewell, which would keep a transport alive after its event loop.
                    if response.connection is not None and response.connection.transport is not None:
                        response.connection.transport.abort()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubernetesUnavailable(f"the watch of {resource.plural} broke: {error}") from error

    # -- conveniences ------------------------------------------------------------------------------------------------

    async def create_token(self, account: str, namespace: str, *, audience: str | None, seconds: int) -> str:
        """A token of a service account, as `kubectl create token` gets it."""
        spec: Json = {"expirationSeconds": seconds}
        if audience is not None:
            spec["audiences"] = [audience]
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self.create(SERVICE_ACCOUNTS, request, namespace, name=account, subresource="token")
        return str(answer["status"]["token"])

    async def apply(self, objects: Iterable[Json], *, field_manager: str = "localcluster") -> Objects:
        """Server-side apply, in order; waits up to 15 s for a kind whose CRD was applied a moment ago."""
        applied = []
        for obj in objects:
            resource, namespaced = await self.resource_of(obj["apiVersion"], obj["kind"])
            metadata = obj["metadata"]
            namespace = metadata.get("namespace", "default") if namespaced else ""
            params = {"fieldManager": field_manager, "force": "true"}
            path = resource.path(namespace, metadata["name"])
            applied.append(await self.request("PATCH", path, body=obj, params=params, content_type=APPLY_PATCH))
        return applied

    async def resource_of(self, api_version: str, kind: str, *, within: float = 15.0) -> tuple[Resource, bool]:
        """The resource of a kind, by discovery, and whether it is namespaced; waits for it up to `within` seconds."""
        deadline = time.monotonic() + within
        while (api_version, kind) not in self._kinds:
            for entry in await self._discover(api_version):
                if "/" not in entry["name"]:
                    resource = Resource(api_version, entry["name"])
                    self._kinds[api_version, entry["kind"]] = (resource, bool(entry["namespaced"]))
            if (api_version, kind) not in self._kinds:
                if time.monotonic() > deadline:
                    raise KubernetesRefused(f"the API server does not serve {kind} of {api_version}", 404)
                await asyncio.sleep(0.1)
        return self._kinds[api_version, kind]

    async def namespaced_resources(self) -> Sequence[Resource]:
        """Everything in the preferred versions of all groups that lives in namespaces and can be listed and deleted."""
        groups = (await self.request("GET", "/apis")).get("groups") or []
        found = []
        for api_version in ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]:
            for entry in await self._discover(api_version):
                if entry["namespaced"] and "/" not in entry["name"] and {"list", "delete"} <= set(entry["verbs"]):
                    found.append(Resource(api_version, entry["name"]))
        return found

    async def wait_for(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        until: Callable[[Json | None], bool],
        timeout: float = 30.0,  # noqa: ASYNC109 — the word that callers expect
    ) -> Json | None:
        """Poll until `until(object or None)` holds and return the object; TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            obj = await self.find(resource, name, namespace)
            if until(obj):
                return obj
            if time.monotonic() > deadline:
                status = json.dumps(obj.get("status", {}) if obj else None)
                raise TimeoutError(f"{resource.plural}/{name}: not as expected after {timeout:g} s: {status}")
            await asyncio.sleep(0.05)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | Objects | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """One HTTP request; the decoded answer."""
        headers = {"Content-Type": content_type} if body is not None else {}
        data = None if body is None else json.dumps(body)
        try:
            async with self._open().request(
                method, self.connection.server + path, params=params, data=data, headers=headers
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubernetesUnavailable(f"{method} {path}: no answer: {error}") from error
        if response.status >= 400:
            raise _failure(response.status, content, f"{method} {path}")
        return dict(json.loads(content)) if content else {}

    async def _discover(self, api_version: str) -> Objects:
        prefix = "api" if "/" not in api_version else "apis"
        try:
            return list((await self.request("GET", f"/{prefix}/{api_version}")).get("resources") or [])
        except KubernetesRefused as error:
            if error.status == 404:
                return []
            raise

    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the client in `async with`"
        return self._session


def has_condition(kind: str, status: str = "True") -> Callable[[Json | None], bool]:
    """For `wait_for`: the object has this condition, for its current generation where the status says so."""

    def check(obj: Json | None) -> bool:
        if obj is None:
            return False
        observed = obj.get("status", {}).get("observedGeneration")
        if observed is not None and observed < obj["metadata"].get("generation", 0):
            return False
        conditions = obj.get("status", {}).get("conditions") or []
        return any(entry["type"] == kind and entry["status"] == status for entry in conditions)

    return check


def is_gone(obj: Json | None) -> bool:
    """For `wait_for`: there is no such object."""
    return obj is None


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Json]]:
    # Lines can be longer than aiohttp's own line limit (a Secret may have 1 MiB).
    buffer = b""
    async for chunk in response.content.iter_any():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise KubernetesRefused(event["object"].get("message", "watch error"), event["object"].get("code"))
            yield event["type"], event["object"]


def _failure(status: int, content: bytes, what: str) -> EdgefarmError:
    try:
        message = str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        message = content[:200].decode(errors="replace") or f"HTTP {status}"
    if status == 409:
        return Conflict(f"{what}: {message}")
    if status == 429 or status >= 500:
        return KubernetesUnavailable(f"{what}: {message}")
    return KubernetesRefused(f"{what}: {message}", status)
