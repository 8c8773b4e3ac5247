"""Reads what pods refer to (ConfigMaps, Secrets, tokens, their own fields) into plain values."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgefarm.errors import KubernetesUnavailable
from localcluster.client import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, Client, Json, Resource

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class MissingSource(Exception):
    """Something that a pod needs is not there (yet); the message says what."""


@dataclass(frozen=True)
class PodFacts:
    """What the node decided about a pod."""

    node: str
    pod_ip: str
    host_ip: str


@dataclass(frozen=True)
class Token:
    """A service-account token and when (Unix seconds) it must be replaced."""

    text: str
    refresh_at: float


async def read_data(client: Client, resource: Resource, name: str, namespace: str) -> dict[str, bytes] | None:
    """Content of a ConfigMap or Secret, decoded; None when it does not exist."""
    obj = await client.find(resource, name, namespace)
    if obj is None:
        return None
    if resource == SECRETS:
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    content = {key: str(value).encode() for key, value in (obj.get("data") or {}).items()}
    return content | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


async def request_token(client: Client, pod: Json, source: Mapping[str, Any], now: float) -> Token:
    """A token bound to the pod, for a `serviceAccountToken` projection (TokenRequest API)."""
    metadata, spec = pod["metadata"], pod["spec"]
    seconds = int(source.get("expirationSeconds") or 3600)
    request: Json = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": [source["audience"]] if source.get("audience") else [],
            "expirationSeconds": seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }
    account = spec.get("serviceAccountName") or "default"
    answer = await client.create(SERVICE_ACCOUNTS, request, metadata["namespace"], name=account, subresource="token")
    # The kubelet refreshes at 80 % of the lifetime or after a day, whichever is earlier.
    return Token(answer["status"]["token"], now + min(0.8 * seconds, 86400))


def field(pod: Json, path: str, facts: PodFacts) -> str:
    """The downward API: one field of the pod as text. Raises MissingSource for a field that is not supported."""
    metadata, spec = pod["metadata"], pod["spec"]
    if found := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(found[1]) or {}).get(found[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(entries.items()))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": facts.node,
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": facts.pod_ip,
        "status.podIPs": facts.pod_ip,
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in known:
        raise MissingSource(f"the node runner does not support fieldRef {path!r}")
    return str(known[path])


class EnvironmentReader:
    """Resolves `env` and `envFrom` of containers of one pod; what was read serves on while no API server answers."""

    def __init__(self, client: Client, facts: PodFacts) -> None:
        self._client = client
        self._facts = facts
        self._known: dict[str, list[tuple[str, str]]] = {}

    async def read(self, pod: Json, container: Json) -> list[tuple[str, str]]:
        """The variables in order, before any expansion; raise MissingSource for a reference to nothing."""
        name = container["name"]
        try:
            self._known[name] = await self._read(pod, container)
        except KubernetesUnavailable:
            if name not in self._known:
                raise
        return self._known[name]

    async def _read(self, pod: Json, container: Json) -> list[tuple[str, str]]:
        variables: list[tuple[str, str]] = []
        for source in container.get("envFrom") or []:
            variables += await self._all_of(pod, source)
        for entry in container.get("env") or []:
            if "valueFrom" in entry:
                value = await self._value(pod, entry["valueFrom"])
                variables += [] if value is None else [(entry["name"], value.replace("$", "$$"))]
            else:
                variables.append((entry["name"], entry.get("value") or ""))
        return variables

    async def _all_of(self, pod: Json, source: Json) -> list[tuple[str, str]]:
        resource, kind = (SECRETS, "secretRef") if "secretRef" in source else (CONFIG_MAPS, "configMapRef")
        reference = source[kind]
        data = await read_data(self._client, resource, reference["name"], pod["metadata"]["namespace"])
        if data is None:
            if reference.get("optional"):
                return []
            raise MissingSource(f"{resource.plural} {reference['name']!r} not found")
        prefix = source.get("prefix", "")
        return [(prefix + key, value.decode().replace("$", "$$")) for key, value in data.items()]

    async def _value(self, pod: Json, source: Json) -> str | None:
        if "fieldRef" in source:
            return field(pod, source["fieldRef"]["fieldPath"], self._facts)
        if "resourceFieldRef" in source:
            raise MissingSource("the node runner does not support resourceFieldRef")
        resource, kind = (SECRETS, "secretKeyRef") if "secretKeyRef" in source else (CONFIG_MAPS, "configMapKeyRef")
        reference = source[kind]
        data = await read_data(self._client, resource, reference["name"], pod["metadata"]["namespace"]) or {}
        if reference["key"] in data:
            return data[reference["key"]].decode()
        if reference.get("optional"):
            return None
        raise MissingSource(f"key {reference['key']!r} of {resource.plural} {reference['name']!r} not found")
