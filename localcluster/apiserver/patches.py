"""JSON, merge and strategic merge patches as pure functions from one object to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import jsonpatch

from localcluster.apiserver.failures import ApiError, bad_request

Json = dict[str, Any]

#: Lists of objects that merge by these keys (patchMergeKey of the Kubernetes API types); any other list is replaced.
MERGE_KEYS: Final[Mapping[str, str]] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "secrets": "name",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "conditions": "type",
    "ownerReferences": "uid",
    "addresses": "type",
    "taints": "key",
    "podIPs": "ip",
    "hostIPs": "ip",
    "webhooks": "name",
    "matchConditions": "name",
}
#: Lists of strings that merge as sets.
MERGE_SETS: Final = frozenset({"finalizers"})


def merge_key(field: str, items: list[Any]) -> str | None:
    """The key by which the objects of a list merge; None when the list is replaced as a whole."""
    if field == "ports":  # containers and services disagree
        first = next((item for item in items if isinstance(item, Mapping)), {})
        return "containerPort" if "containerPort" in first else "port" if "port" in first else None
    return MERGE_KEYS.get(field)


def json_patch(document: Json, operations: Any) -> Json:
    """RFC 6902; 422 when an operation does not apply, as the real server answers."""
    if not isinstance(operations, list):
        raise bad_request("a JSON patch must be a list of operations")
    try:
        patched = jsonpatch.JsonPatch(operations).apply(document)
    except (jsonpatch.InvalidJsonPatch, KeyError, TypeError) as error:
        raise bad_request(f"invalid JSON patch: {error}") from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise ApiError(
            422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
        ) from error
    return cast(Json, patched)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge(target: Any, patch: Any) -> Any:
    """Kubernetes' strategic merge patch of built-in types, with its `$patch`, `$retainKeys` and order directives."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field) or [] if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, list):
            order = patch.get(f"$setElementOrder/{key}")
            result[key] = _merge_list(key, result.get(key) or [], value, order)
        else:
            result[key] = strategic_merge(result.get(key), value)
    return result


def _merge_list(field: str, target: list[Any], patch: list[Any], order: list[Any] | None) -> list[Any]:
    if field in MERGE_SETS:
        return target + [item for item in patch if item not in target]
    key = merge_key(field, [*patch, *target])
    if key is None or any(not isinstance(item, dict) for item in patch):
        return [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
    replace = any(item.get("$patch") == "replace" for item in patch)
    merged = [] if replace else list(target)
    for item in patch:
        if key not in item:
            if "$patch" in item:
                continue
            raise bad_request(f"map: {field} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            merged = [old for old in merged if old.get(key) != item[key]]
        elif at is None:
            merged.append(strategic_merge({}, item))
        else:
            merged[at] = strategic_merge(merged[at], item)
    if order is not None:
        wanted = [item.get(key) for item in order if isinstance(item, dict)]
        ranks = {value: rank for rank, value in enumerate(wanted)}
        # Elements the patch's author does not know keep their place after those that it ordered.
        merged.sort(key=lambda item: ranks.get(item.get(key), len(ranks)))
    return merged
