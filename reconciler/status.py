"""Conditions and status: pure helpers in the sense of the Kubernetes API conventions, and the one write that differs.

https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

from edgefarm.errors import KubernetesRefused
from reconciler.ports import Kind, Kube, Object
from reconciler.timestamps import rfc3339


@dataclass(frozen=True)
class Condition:
    """One observation about an object: `reason` in CamelCase for programs, `message` a sentence for humans."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def set_condition(
    conditions: Sequence[Mapping[str, Any]], wanted: Condition, *, generation: int, now: datetime
) -> list[Object]:
    """The conditions with `wanted` in its place; lastTransitionTime moves only when the status changes.

    `generation` is the metadata.generation that was looked at.
    """
    old = next((condition for condition in conditions if condition.get("type") == wanted.type), None)
    unchanged = old is not None and old.get("status") == wanted.status and old.get("lastTransitionTime")
    new: Object = {
        "type": wanted.type,
        "status": wanted.status,
        "observedGeneration": generation,
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and unchanged else rfc3339(now),
        "reason": wanted.reason,
        "message": wanted.message,
    }
    if old is None:
        return [*map(dict, conditions), new]
    return [new if condition is old else dict(condition) for condition in conditions]


def set_conditions(obj: Mapping[str, Any], wanted: Iterable[Condition], *, now: datetime) -> list[Object]:
    """The object's conditions with all `wanted` ones in their places, observed at its present generation."""
    conditions: list[Object] = list((obj.get("status") or {}).get("conditions") or ())
    for condition in wanted:
        generation = int(obj["metadata"].get("generation") or 0)
        conditions = set_condition(conditions, condition, generation=generation, now=now)
    return conditions


def find_condition(obj: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type in an object's status."""
    conditions: Sequence[Mapping[str, Any]] = (obj.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == type_), None)


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """The JSON merge patch (RFC 7396) that turns `old` into `new`; empty when they are equal."""
    patch: Object = {name: None for name in old if name not in new and old[name] is not None}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = merge_patch(before, value)
            if inner:
                patch[name] = inner
        elif value != before:
            patch[name] = value
    return patch


async def write_status(kube: Kube, kind: Kind, obj: Mapping[str, Any], status: Mapping[str, Any]) -> bool:
    """Make `status` the whole status of the object; False when it is that already (no request is made), or when the
    object has gone meanwhile."""
    patch = merge_patch(obj.get("status") or {}, status)
    if not patch:
        return False
    metadata = obj["metadata"]
    try:
        await kube.patch(kind, metadata.get("namespace"), metadata["name"], {"status": patch}, subresource="status")
    except KubernetesRefused as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        return False
    return True
