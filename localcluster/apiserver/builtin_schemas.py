"""Schemas of built-in kinds, read from the official Python client: which fields exist, and their JSON types.

Importing the client's models takes half a second, so it happens with the first write, not at start.
"""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any, Final

from localcluster.apiserver import structural
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.structural import Schema

_SCALARS: Final = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "datetime": "string",
}
_FREE: Final[Schema] = {"x-kubernetes-preserve-unknown-fields": True}
#: Fields (or values of fields) that are quantities: the API takes numbers for them too.
_QUANTITIES: Final = frozenset(
    ("limits", "requests", "capacity", "allocatable", "overhead", "hard", "used", "divisor", "sizeLimit")
)
_QUANTITY: Final[Schema] = {"x-kubernetes-int-or-string": True}
#: Recursive types, which are checked elsewhere (definitions.py) or not at all.
_OPAQUE: Final = frozenset({"V1JSONSchemaProps"})
_GROUPED: Final = {("", "Event"): "CoreV1Event", ("events.k8s.io", "Event"): "EventsV1Event"}


@cache
def schema_of(resource: Resource) -> Schema | None:
    """The structural schema of a built-in kind; None for kinds without a model of their own."""
    models = importlib.import_module("kubernetes.client.models")
    name = _GROUPED.get((resource.group, resource.kind), f"V1{resource.kind}")
    return _model(name) if hasattr(models, name) else None


@cache
def metadata_schema() -> Schema:
    """The structural schema of ObjectMeta, which every kind has."""
    return _model("V1ObjectMeta")


@cache
def metadata_validator() -> Any:
    """A compiled validator of ObjectMeta's JSON types."""
    return structural.validator(metadata_schema())


@cache
def validator_of(resource: Resource) -> Any:
    """A compiled validator of the kind's JSON types."""
    schema = schema_of(resource)
    assert schema is not None
    return structural.validator(schema)


@cache
def _model(name: str) -> Schema:
    if name in _OPAQUE:
        return _FREE
    model = getattr(importlib.import_module("kubernetes.client.models"), name)
    properties = {
        model.attribute_map[attribute]: _type(kind, model.attribute_map[attribute])
        for attribute, kind in model.openapi_types.items()
    }
    return {"type": "object", "properties": properties}


def _type(kind: str, field: str) -> Schema:
    found = re.fullmatch(r"(List|Dict)\[(?:str, )?(.*)\]", kind)
    if found and found[1] == "List":
        return {"type": "array", "items": _type(found[2], field)}
    if found:
        return {"type": "object", "additionalProperties": _type(found[2], field)}
    if kind == "str" and field in _QUANTITIES:
        return _QUANTITY
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    return _model(kind) if kind.startswith("V") and kind[1:2].isdigit() else _FREE
