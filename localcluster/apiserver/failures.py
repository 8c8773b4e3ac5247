"""Errors of the API server as Kubernetes words them: metav1.Status with reason, code and causes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from edgefarm.errors import EdgefarmError
from localcluster.apiserver.resources import Resource


class ApiError(EdgefarmError):
    """A refused request; `status()` is the body that Kubernetes would answer with."""

    def __init__(self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """The metav1.Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body


@dataclass(frozen=True)
class Cause:
    """One wrong field. `reason` is a FieldValue… cause type, `text` what follows the field's path."""

    field: str
    reason: str
    text: str

    @classmethod
    def required(cls, field: str, hint: str = "") -> Cause:
        return cls(field, "FieldValueRequired", f"Required value{': ' + hint if hint else ''}")

    @classmethod
    def invalid(cls, field: str, value: object, hint: str) -> Cause:
        return cls(field, "FieldValueInvalid", f"Invalid value: {quote(value)}: {hint}")

    @classmethod
    def duplicate(cls, field: str, value: object) -> Cause:
        return cls(field, "FieldValueDuplicate", f"Duplicate value: {quote(value)}")

    @classmethod
    def forbidden(cls, field: str, hint: str) -> Cause:
        return cls(field, "FieldValueForbidden", f"Forbidden: {hint}")

    @classmethod
    def unsupported(cls, field: str, value: object, supported: Sequence[str]) -> Cause:
        options = ", ".join(f'"{option}"' for option in supported)
        text = f'Unsupported value: "{value or ""}": supported values: {options}'
        return cls(field, "FieldValueNotSupported", text)

    @classmethod
    def not_found(cls, field: str, value: object) -> Cause:
        return cls(field, "FieldValueNotFound", f"Not found: {quote(value)}")


def quote(value: object) -> str:
    """A value as Kubernetes prints it in a field error."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return orjson.dumps(value).decode()


def not_found(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(resource, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> ApiError:
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, _details(resource, name))


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 naming every wrong field."""
    texts = [f"{cause.field}: {cause.text}" for cause in causes]
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    details = {
        "name": name,
        **({"group": resource.group} if resource.group else {}),
        "kind": resource.kind,
        "causes": [{"reason": c.reason, "message": c.text, "field": c.field} for c in causes],
    }
    return ApiError(422, "Invalid", f'{kind} "{name}" is invalid: {listed}', details)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def expired(message: str = "The resourceVersion for the provided watch is too old.") -> ApiError:
    return ApiError(410, "Expired", message)


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def _details(resource: Resource, name: str) -> dict[str, Any]:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural}
