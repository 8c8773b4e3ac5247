"""metav1.Table: rows and columns as `kubectl get` shows them, for built-in resources and custom ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from localcluster.apiserver.columns import AGE, BUILTIN, Column, age, json_path, shown_name
from localcluster.apiserver.resources import Resource
from localcluster.apiserver.store import Json


def columns(resource: Resource) -> Sequence[Column]:
    """The columns of a resource, name first."""
    name = Column("Name", shown_name, format="name")
    if resource.definition is not None:
        printed = resource.definition.get("additionalPrinterColumns")
        return (name, *(_custom(c) for c in printed)) if printed else (name, AGE)
    shown = BUILTIN.get(resource.bucket, ())
    narrow = [column for column in shown if column.priority == 0]
    return (name, *narrow, AGE, *(column for column in shown if column.priority > 0))


def table(resource: Resource, objects: Sequence[Json], now: datetime, *, include: str, metadata: Json) -> Json:
    """A Table of objects; `include` is Metadata, Object or None, as the client asks with includeObject."""
    shown = columns(resource)
    rows = []
    for obj in objects:
        row: Json = {"cells": [column.value(obj, now) for column in shown]}
        if include == "Metadata":
            row["object"] = partial(obj)
        elif include == "Object":
            row["object"] = obj
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [column.definition() for column in shown],
        "rows": rows,
    }


def partial(obj: Json) -> Json:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _custom(column: Mapping[str, Any]) -> Column:
    path, kind = column["jsonPath"], column["type"]

    def value(obj: Json, now: datetime) -> Any:
        found = json_path(obj, path)
        if kind == "date":
            return age(found, now) if found else None
        if kind == "string" and found is not None and not isinstance(found, str):
            return str(found).lower() if isinstance(found, bool) else str(found)
        return found

    return Column(column["name"], value, kind, column.get("priority", 0), column.get("format", ""))
