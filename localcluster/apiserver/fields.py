"""Field ownership (metadata.managedFields) and server-side apply, in Kubernetes' FieldsV1 notation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from localcluster.apiserver.calls import Call, timestamp
from localcluster.apiserver.failures import ApiError
from localcluster.apiserver.patches import MERGE_SETS, merge_key
from localcluster.apiserver.store import Json

#: The keys of a list of objects that merge, `None` for a list that is replaced as a whole, `()` for a set of scalars.
ListKeys = Callable[[tuple[str, ...], list[Any]], tuple[str, ...] | None]
Path = tuple[str, ...]
_UNOWNED: Final = frozenset({"apiVersion", "kind"})
_UNOWNED_METADATA: Final = frozenset(
    [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "generation",
        "managedFields",
        "selfLink",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]
)


def builtin_list_keys(path: tuple[str, ...], items: list[Any]) -> tuple[str, ...] | None:
    """How lists of built-in types merge under server-side apply."""
    field = path[-1]
    if field in MERGE_SETS:
        return ()
    key = merge_key(field, items)
    if key is None:
        return None
    return (key, "protocol") if field == "ports" and any("protocol" in item for item in items) else (key,)


def leaves(value: Any, keys: ListKeys) -> dict[Path, Any]:
    """Every owned leaf of an object with its value, by its path in FieldsV1 steps (`f:name`, `k:{...}`, `v:...`)."""
    found: dict[Path, Any] = {}
    _collect(value, keys, (), (), found)
    return {path: leaf for path, leaf in found.items() if not _unowned(path)}


def to_fields(paths: set[Path]) -> Json:
    """FieldsV1 of a set of paths."""
    root: Json = {}
    for path in sorted(paths):
        node = root
        for step in path:
            node = node.setdefault(step, {})
            if step.startswith("k:"):
                node.setdefault(".", {})
    return root


def from_fields(fields: Json, prefix: Path = ()) -> set[Path]:
    """The paths of FieldsV1."""
    paths: set[Path] = set()
    for step, below in fields.items():
        if step == ".":
            continue
        deeper = {key: value for key, value in below.items() if key != "."}
        paths |= from_fields(deeper, (*prefix, step)) if deeper else {(*prefix, step)}
    return paths


class Ownership:
    """Gives the fields that a create, update or patch changes to its manager."""

    def __init__(self, call: Call, keys: ListKeys = builtin_list_keys) -> None:
        self._call = call
        self._keys = keys

    def record(self, obj: Json, old: Json | None) -> None:
        """Write metadata.managedFields of the new object."""
        before = leaves(old, self._keys) if old else {}
        after = leaves(obj, self._keys)
        changed = {path for path, value in after.items() if path not in before or before[path] != value}
        entries = _entries(old)
        for entry in entries:
            mine = self._is_mine(entry)
            owned = from_fields(entry.get("fieldsV1") or {})
            kept = {path for path in owned if path in after and (mine or path not in changed)}
            if kept != owned:
                entry["fieldsV1"] = to_fields(kept)
        if changed:
            self._give(entries, changed)
        _store(obj, entries)

    def _is_mine(self, entry: Json) -> bool:
        return (
            entry.get("manager") == self._call.manager
            and entry.get("operation") == "Update"
            and entry.get("subresource", "") == self._call.subresource
        )

    def _give(self, entries: list[Json], changed: set[Path]) -> None:
        mine = next((entry for entry in entries if self._is_mine(entry)), None)
        if mine is None:
            mine = new_entry(self._call, "Update")
            entries.append(mine)
        owned = from_fields(mine["fieldsV1"]) | changed
        mine |= {"time": timestamp(self._call.now), "fieldsV1": to_fields(owned)}


class Apply(Ownership):
    """One applied configuration: what it makes of the present object, and who owns what afterwards."""

    def __init__(self, call: Call, applied: Json, keys: ListKeys) -> None:
        super().__init__(call, keys)
        self._applied = applied
        self._wanted = leaves(applied, keys)

    def merged(self, old: Json | None) -> Json:
        """The present object with the configuration; 409 when another manager owns a field with another value."""
        if old is None:
            return dict(self._applied)
        entries = _entries(old)
        before = leaves(old, self._keys)
        self._refuse_conflicts(entries, before)
        result = _merge(old, self._applied, self._keys, ())
        mine = next((entry for entry in entries if self._is_mine(entry)), None)
        if mine is not None:
            others = [from_fields(entry.get("fieldsV1") or {}) for entry in entries if not self._is_mine(entry)]
            for path in from_fields(mine.get("fieldsV1") or {}) - self._wanted.keys():
                if not any(path in owned for owned in others):
                    _remove(result, path)
        result["metadata"].pop("managedFields", None)
        return dict(result)

    def record(self, obj: Json, old: Json | None) -> None:
        before = leaves(old, self._keys) if old else {}
        entries = _entries(old)
        for entry in entries:
            if not self._is_mine(entry):
                owned = from_fields(entry.get("fieldsV1") or {})
                lost = {path for path, value in self._wanted.items() if path in before and before[path] != value}
                if owned & lost:
                    entry["fieldsV1"] = to_fields(owned - lost)
        mine = next((entry for entry in entries if self._is_mine(entry)), None)
        if mine is None:
            mine = new_entry(self._call, "Apply")
            entries.append(mine)
        mine |= {"time": timestamp(self._call.now), "fieldsV1": to_fields(set(self._wanted))}
        _store(obj, entries)

    def _is_mine(self, entry: Json) -> bool:
        return (
            entry.get("manager") == self._call.manager
            and entry.get("operation") == "Apply"
            and entry.get("subresource", "") == self._call.subresource
        )

    def _refuse_conflicts(self, entries: list[Json], before: dict[Path, Any]) -> None:
        if self._call.force:
            return
        causes = []
        for entry in entries:
            if self._is_mine(entry):
                continue
            owned = from_fields(entry.get("fieldsV1") or {})
            for path, value in self._wanted.items():
                if path in owned and before.get(path) != value:
                    version = f" using {entry['apiVersion']}" if entry.get("operation") == "Update" else ""
                    message = f'conflict with "{entry["manager"]}"{version}'
                    causes.append({"reason": "FieldManagerConflict", "message": message, "field": _dotted(path)})
        if causes:
            listed = ", ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
            many = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
            message = f"Apply failed with {many}: {listed}"
            raise ApiError(409, "Conflict", message, {"causes": causes})


def new_entry(call: Call, operation: str) -> Json:
    """An empty managedFields entry."""
    entry: Json = {
        "manager": call.manager,
        "operation": operation,
        "apiVersion": call.resource.api_version,
        "time": timestamp(call.now),
        "fieldsType": "FieldsV1",
        "fieldsV1": {},
    }
    return entry | ({"subresource": call.subresource} if call.subresource else {})


def _entries(old: Json | None) -> list[Json]:
    return [dict(entry) for entry in (old or {}).get("metadata", {}).get("managedFields") or ()]


def _store(obj: Json, entries: list[Json]) -> None:
    obj["metadata"].pop("managedFields", None)
    kept = [entry for entry in entries if entry.get("fieldsV1")]
    if kept:
        obj["metadata"]["managedFields"] = kept


def _collect(value: Any, keys: ListKeys, names: tuple[str, ...], path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            _collect(inner, keys, (*names, name), (*path, f"f:{name}"), found)
        return
    if isinstance(value, list) and value:
        by = _list_keys(keys, names, value)
        if by == ():
            found.update({(*path, f"v:{orjson.dumps(item).decode()}"): item for item in value})
            return
        if by:
            for item in value:
                _collect(item, keys, names, (*path, _item_step(item, by)), found)
            return
    found[path] = value


def _list_keys(keys: ListKeys, names: tuple[str, ...], items: list[Any]) -> tuple[str, ...] | None:
    """As `keys`, but atomic where items are no objects: such lists are refused later, by the schema."""
    whole = all(isinstance(item, dict) for item in items)
    if not whole and any(isinstance(item, dict) for item in items):
        return None
    by = keys(names, items)
    return by if whole is bool(by) else None


def _item_step(item: Json, by: tuple[str, ...]) -> str:
    chosen = {key: item[key] for key in sorted(by) if key in item}
    return f"k:{orjson.dumps(chosen).decode()}"


def _unowned(path: Path) -> bool:
    first = path[0].removeprefix("f:") if path else ""
    if first == "metadata":
        return len(path) == 1 or path[1].removeprefix("f:") in _UNOWNED_METADATA
    return first in _UNOWNED or not path


def _merge(old: Any, new: Any, keys: ListKeys, names: tuple[str, ...]) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {
            **old,
            **{name: _merge(old.get(name), value, keys, (*names, name)) for name, value in new.items()},
        }
    if isinstance(old, list) and isinstance(new, list) and (old or new):
        by = _list_keys(keys, names, [*new, *old])
        if by == ():
            return old + [item for item in new if item not in old]
        if by:
            result = list(old)
            for item in new:
                step = _item_step(item, by)
                at = next((i for i, present in enumerate(result) if _item_step(present, by) == step), None)
                if at is None:
                    result.append(item)
                else:
                    result[at] = _merge(result[at], item, keys, names)
            return result
    return new


def _remove(value: Any, path: Path) -> None:
    """Remove one leaf, and what becomes empty by it."""
    step, rest = path[0], path[1:]
    if step.startswith("f:") and isinstance(value, dict):
        name = step[2:]
        if rest and name in value:
            _remove(value[name], rest)
            if value[name] in ({}, []):
                del value[name]
        else:
            value.pop(name, None)
    elif isinstance(value, list):
        wanted = orjson.loads(step[2:])
        if step.startswith("v:"):
            value[:] = [item for item in value if item != wanted]
        else:
            for item in [i for i in value if all(i.get(key) == v for key, v in wanted.items())]:
                if rest:
                    _remove(item, rest)
                if not rest or set(item) <= set(wanted) or rest[0][2:] in wanted:
                    value.remove(item)


def _dotted(path: Path) -> str:
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            pairs = ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in orjson.loads(step[2:]).items())
            text += f"[{pairs}]"
        else:
            text += f"[{step}]"
    return text
