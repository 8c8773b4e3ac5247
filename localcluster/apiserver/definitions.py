"""CustomResourceDefinitions: checks them, serves what they define and holds the compiled schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from localcluster.apiserver import structural
from localcluster.apiserver.cel_rules import Rules
from localcluster.apiserver.failures import Cause
from localcluster.apiserver.resources import Bucket, Registry, Resource

Json = dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """One version's schema, ready to use."""

    schema: Mapping[str, Any]
    validator: Any
    rules: Rules


class Definitions:
    """Compiled schemas of custom resources, kept beside the registry that serves them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._compiled: dict[tuple[str, str, str], Compiled] = {}

    def of(self, resource: Resource) -> Compiled:
        """The compiled schema of a custom resource."""
        return self._compiled[(resource.group, resource.version, resource.plural)]

    def establish(self, definition: Json) -> None:
        """Serve the versions of a definition that `problems` found nothing wrong with."""
        resources = []
        for version in definition["spec"]["versions"]:
            if version.get("served", True):
                resource = _resource(definition["spec"], version)
                schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
                key = (resource.group, resource.version, resource.plural)
                self._compiled[key] = Compiled(schema, structural.validator(schema), Rules(schema))
                resources.append(resource)
        self._registry.replace_custom(bucket_of(definition), resources)

    def remove(self, definition: Json) -> None:
        """Stop serving what the definition defines."""
        self._registry.replace_custom(bucket_of(definition), [])


def bucket_of(definition: Json) -> Bucket:
    """Where the custom objects are kept."""
    return (definition["spec"]["group"], definition["spec"]["names"]["plural"])


def storage_version(definition: Json) -> str:
    """apiVersion of the stored form."""
    stored = next(version["name"] for version in definition["spec"]["versions"] if version.get("storage"))
    return f"{definition['spec']['group']}/{stored}"


def accepted_status(definition: Json, now: datetime) -> Json:
    """The status of a definition whose names are accepted and that is served."""
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    old = definition.get("status") or {}
    stored = next(version["name"] for version in definition["spec"]["versions"] if version.get("storage"))
    versions = [*(old.get("storedVersions") or ())]
    conditions = old.get("conditions") or [
        _condition("NamesAccepted", "NoConflicts", "no conflicts found", moment),
        _condition("Established", "InitialNamesAccepted", "the initial names have been accepted", moment),
    ]
    return {
        "conditions": conditions,
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": versions if stored in versions else [*versions, stored],
    }


def problems(definition: Json) -> list[Cause]:
    """What Kubernetes refuses in a CustomResourceDefinition."""
    spec = definition["spec"]
    names = spec.get("names") or {}
    causes: list[Cause] = []
    for field in ("plural", "kind"):
        if not names.get(field):
            causes.append(Cause.required(f"spec.names.{field}"))
    if not spec.get("group"):
        causes.append(Cause.required("spec.group"))
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        causes.append(Cause.required("spec.scope"))
    versions = spec.get("versions") or []
    causes += [Cause.required(f"spec.versions[{i}].name") for i, v in enumerate(versions) if not v.get("name")]
    if sum(bool(version.get("storage")) for version in versions) != 1:
        causes.append(
            Cause.invalid("spec.versions", versions, "must have exactly one version marked as storage version")
        )
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if definition["metadata"]["name"] != wanted:
        hint = 'must be spec.names.plural+"."+spec.group'
        causes.append(Cause.invalid("metadata.name", definition["metadata"]["name"], hint))
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            causes.append(Cause.required(path, "schemas are required"))
        else:
            causes += _schema_problems(schema, path, root=True)
            reason = structural.unusable(schema)
            if reason:
                causes.append(Cause.invalid(path, "", reason))
    return causes


def _schema_problems(schema: Mapping[str, Any], path: str, *, root: bool = False) -> list[Cause]:
    causes: list[Cause] = []
    free = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
    if root and schema.get("type") != "object":
        causes.append(Cause.invalid(f"{path}.type", schema.get("type", ""), "must be object at the root"))
    elif not schema.get("type") and not free:
        causes.append(Cause.required(f"{path}.type", "must not be empty for specified object fields"))
    causes += Rules.problems(schema, path)
    for name, inner in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            causes += _schema_problems(inner, f"{path}.properties[{name}]")
    for field in ("items", "additionalProperties"):
        if isinstance(schema.get(field), Mapping):
            causes += _schema_problems(schema[field], f"{path}.{field}")
    return causes


def _resource(spec: Json, version: Json) -> Resource:
    names = spec["names"]
    subresources = version.get("subresources") or {}
    return Resource(
        spec["group"],
        version["name"],
        names["plural"],
        names["kind"],
        spec["scope"] == "Namespaced",
        tuple(names.get("shortNames") or ()),
        tuple(names.get("categories") or ()),
        frozenset(subresources) & {"status", "scale"},
        generation=True,
        unconditional_update=False,
        bucket=(spec["group"], names["plural"]),
        definition=version,
    )


def _condition(kind: str, reason: str, message: str, moment: str) -> Json:
    return {"type": kind, "status": "True", "lastTransitionTime": moment, "reason": reason, "message": message}
