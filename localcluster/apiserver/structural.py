"""Structural schemas of custom resources: defaults, pruning and validation in Kubernetes' words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jsonschema_rs

from localcluster.apiserver.failures import Cause, quote

Schema = Mapping[str, Any]

_TYPE_ROOTS: Final = frozenset({"apiVersion", "kind", "metadata"})
_KEPT: Final = frozenset(
    {"enum", "maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum", "maxLength", "minLength", "pattern"}
    | {"maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required", "multipleOf"}
)
# Draft 4 spells exclusive limits as OpenAPI v3.0 does: a boolean beside the limit.
_FORMATS: Final = frozenset({"date-time", "date", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"})


def prune(schema: Schema, value: Any, path: str = "", *, root: bool = True) -> Iterator[str]:
    """Remove fields that the schema does not know from `value`, yielding their paths."""
    if isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            if items is not None:
                yield from prune(items, item, f"{path}[{index}]", root=False)
        return
    if not isinstance(value, dict):
        return
    known = schema.get("properties") or {}
    extra = schema.get("additionalProperties")
    embedded = root or schema.get("x-kubernetes-embedded-resource")
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if embedded and key in _TYPE_ROOTS and key not in known:
            continue
        if embedded and key == "metadata":
            continue
        if key in known:
            yield from prune(known[key], value[key], where, root=False)
        elif isinstance(extra, Mapping):
            yield from prune(extra, value[key], where, root=False)
        elif not (extra is True or schema.get("x-kubernetes-preserve-unknown-fields")):
            del value[key]
            yield where


def apply_defaults(schema: Schema, value: Any) -> None:
    """Fill in `default`s below objects and lists that exist, in place."""
    if isinstance(value, list):
        for item in value:
            apply_defaults(schema.get("items") or {}, item)
    if not isinstance(value, dict):
        return
    for key, inner in (schema.get("properties") or {}).items():
        if "default" in inner and (key not in value or (value[key] is None and not inner.get("nullable"))):
            value[key] = _copy(inner["default"])
        elif key in value and value[key] is None and not inner.get("nullable"):
            del value[key]
        if key in value:
            apply_defaults(inner, value[key])
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        for key in value.keys() - (schema.get("properties") or {}).keys():
            apply_defaults(extra, value[key])


def list_keys(schema: Schema) -> Callable[[tuple[str, ...], list[Any]], tuple[str, ...] | None]:
    """How the lists of this schema merge under server-side apply: map keys, `()` for sets, None for atomic lists."""

    def keys(path: tuple[str, ...], items: list[Any]) -> tuple[str, ...] | None:
        if path == ("metadata", "finalizers"):
            return ()
        if path == ("metadata", "ownerReferences"):
            return ("uid",)
        found: Any = schema
        for name in path:
            # Items of a list share the path of the list.
            found = found.get("items", found)
            found = (found.get("properties") or {}).get(name) or found.get("additionalProperties") or {}
            found = found if isinstance(found, Mapping) else {}
        match found.get("x-kubernetes-list-type"):
            case "map":
                return tuple(found.get("x-kubernetes-list-map-keys") or ())
            case "set":
                return ()
        return None

    return keys


def validator(schema: Schema) -> Any:
    """A compiled validator for `violations`."""
    return jsonschema_rs.Draft4Validator(_json_schema(schema, root=True), validate_formats=True)


def unusable(schema: Schema) -> str:
    """Why a schema cannot be compiled (a pattern that is no regular expression, say); empty when it can."""
    try:
        validator(schema)
    except (ValueError, TypeError, AttributeError) as error:
        return str(error)
    return ""


def violations(compiled: Any, value: Any) -> list[Cause]:
    """What the object breaks, one cause for each place."""
    return [_cause(error) for error in compiled.iter_errors(value)]


def _json_schema(schema: Schema, *, root: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema}
    if schema.get("format") in _FORMATS:
        result["format"] = schema["format"]
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    elif "type" in schema:
        result["type"] = schema["type"]
    if schema.get("nullable") and "type" in result:
        kinds = result["type"] if isinstance(result["type"], list) else [result["type"]]
        result["type"] = [*kinds, "null"]
    if "properties" in schema:
        skipped = _TYPE_ROOTS if root else ()
        result["properties"] = {k: _json_schema(v) for k, v in schema["properties"].items() if k not in skipped}
    if isinstance(schema.get("items"), Mapping):
        result["items"] = _json_schema(schema["items"])
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _json_schema(schema["additionalProperties"])
    for combinator in ("allOf", "anyOf", "oneOf"):
        if combinator in schema:
            result[combinator] = [_json_schema(part) for part in schema[combinator]]
    if "not" in schema:
        result["not"] = _json_schema(schema["not"])
    list_type = schema.get("x-kubernetes-list-type")
    if list_type == "set":
        result["uniqueItems"] = True
    return result


def _cause(error: Any) -> Cause:
    path = _path(error.instance_path)
    kind, value = error.kind, error.instance
    match kind.name:
        case "required":
            return Cause.required(f"{path}.{kind.property}".lstrip("."))
        case "enum":
            options = ", ".join(quote(option) for option in kind.options)
            text = f"Unsupported value: {quote(value)}: supported values: {options}"
            return Cause(path, "FieldValueNotSupported", text)
        case "maxLength":
            return Cause(path, "FieldValueTooLong", f"Too long: may not be more than {kind.limit} bytes")
        case "maxItems":
            text = f"Too many: {len(value)}: must have at most {kind.limit} items"
            return Cause(path, "FieldValueTooMany", text)
        case "maxProperties":
            text = f"Too many: {len(value)}: must have at most {kind.limit} items"
            return Cause(path, "FieldValueTooMany", text)
        case "uniqueItems":
            seen: list[Any] = []
            for index, item in enumerate(value):
                if item in seen:
                    return Cause.duplicate(f"{path}[{index}]", item)
                seen.append(item)
            return Cause.invalid(path, value, "shouldn't contain duplicates")
        case "type":
            wanted = ",".join(kind.types)
            found = quote(_type_name(value))
            text = f"Invalid value: {found}: {path} in body must be of type {wanted}: {found}"
            return Cause(path, "FieldValueTypeInvalid", text)
        case "anyOf":
            return Cause.invalid("<nil>", "", f'"{path}" must validate at least one schema (anyOf)')
        case "oneOf" | "oneOfMultipleValid" | "oneOfNotValid":
            return Cause.invalid("<nil>", "", f'"{path}" must validate one and only one schema (oneOf)')
        case _:
            return Cause.invalid(path, value, f"{path} in body {_rule(kind, error.message)}")


def _rule(kind: Any, message: str) -> str:
    match kind.name:
        case "pattern":
            return f"should match '{kind.pattern}'"
        case "minLength":
            return f"should be at least {kind.limit} chars long"
        case "minimum":
            return f"should be greater than or equal to {kind.limit}"
        case "maximum":
            return f"should be less than or equal to {kind.limit}"
        case "minItems":
            return f"should have at least {kind.limit} items"
        case "minProperties":
            return f"should have at least {kind.limit} properties"
        case "multipleOf":
            return f"should be a multiple of {kind.value}"
        case "format":
            return f"must be of type {kind.value}"
        case "not":
            return "must not validate the schema (not)"
        case _:
            return f"is not valid: {message}"


def _path(steps: list[Any]) -> str:
    path = ""
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return re.sub(r"^\.", "", path) or "<nil>"


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
