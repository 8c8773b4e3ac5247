"""What clients learn about the API before they use it: groups, resources, version and OpenAPI documents."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson

from localcluster.apiserver.definitions import Definitions
from localcluster.apiserver.resources import Registry, Resource
from localcluster.apiserver.store import Json

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_CHANGE: Final = ["get", "patch", "update"]
_PROXIED: Final = ["create", "delete", "get", "patch", "update"]
_SUBRESOURCE_VERBS: Final = {"status": _CHANGE, "scale": _CHANGE, "log": ["get"], "proxy": _PROXIED}
_SUBRESOURCE_KINDS: Final = {
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
}

VERSION: Final = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.0+localcluster",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "python",
    "platform": "linux/amd64",
}


def core_versions(address: str) -> Json:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def groups(registry: Registry) -> Json:
    """The APIGroupList of /apis."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in registry.group_versions().items() if name],
    }


def group(registry: Registry, name: str) -> Json | None:
    """The APIGroup of /apis/<name>."""
    versions = registry.group_versions().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions else None


def resources(registry: Registry, group_name: str, version: str) -> Json | None:
    """The APIResourceList of one group version."""
    found = registry.of(group_name, version)
    if not found:
        return None
    listed = [entry for resource in found for entry in _entries(resource)]
    api_version = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}


def openapi_index(registry: Registry, definitions: Definitions) -> Json:
    """The paths of /openapi/v3. The hash lets clients keep a document until it changes."""
    paths = {}
    for name, versions in registry.group_versions().items():
        for version in versions:
            path = f"apis/{name}/{version}" if name else f"api/{version}"
            digest = hashlib.sha256(orjson.dumps(openapi(registry, definitions, name, version))).hexdigest().upper()
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return {"paths": paths}


def openapi(registry: Registry, definitions: Definitions, group_name: str, version: str) -> Json | None:
    """The OpenAPI v3 document of one group version: enough for kubectl to validate on the server and to explain."""
    found = registry.of(group_name, version)
    if not found:
        return None
    paths: Json = {}
    schemas: Json = {}
    for resource in found:
        schemas[_schema_name(resource)] = _schema(resource, definitions)
        paths |= _paths(resource)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _entries(resource: Resource) -> list[Json]:
    entry: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["create"] if resource.virtual else _VERBS,
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entries = [entry]
    for subresource in sorted(resource.subresources):
        below: Json = {
            "name": f"{resource.plural}/{subresource}",
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _SUBRESOURCE_VERBS.get(subresource, ["create"]),
        }
        if subresource == "proxy":
            below["kind"] = f"{resource.kind}ProxyOptions"
        if subresource in _SUBRESOURCE_KINDS:
            below["group"], below["version"], below["kind"] = _SUBRESOURCE_KINDS[subresource]
        entries.append(below)
    return entries


def _kind_of(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schema_name(resource: Resource) -> str:
    return f"{resource.group or 'core'}.{resource.version}.{resource.kind}"


def _schema(resource: Resource, definitions: Definitions) -> Json:
    schema: Any = {"type": "object"}
    if resource.custom:
        schema = dict(definitions.of(resource).schema)
        names = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        schema["properties"] = names | (schema.get("properties") or {})
    return {**schema, "x-kubernetes-group-version-kind": [_kind_of(resource)]}


def _paths(resource: Resource) -> Json:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    base += f"/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"/{resource.plural}"
    kind = _kind_of(resource)
    reference = {"$ref": f"#/components/schemas/{_schema_name(resource)}"}
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]

    def operation(action: str, media: str) -> Json:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
            "parameters": parameters,
            "requestBody": {"content": {media: {"schema": reference}}},
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
        }

    create = {"post": operation("post", "application/json")}
    if resource.virtual:
        return {base: create}
    # Strategic merge patches are not announced, so that kubectl takes the merge keys from its own types.
    one = {"put": operation("put", "application/json"), "patch": operation("patch", "application/merge-patch+json")}
    return {base: create, f"{base}/{{name}}": one}
