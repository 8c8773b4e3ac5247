"""Applies the JSON Patch operations that `inject` writes (RFC 6902: add and move), for the offline command."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any


def apply(document: Any, operations: Sequence[Mapping[str, Any]]) -> None:
    """Change `document` in place; LookupError when an operation does not fit, as the API server would refuse it."""
    for operation in operations:
        if operation["op"] == "move":
            value = _take(document, operation["from"])
        elif operation["op"] == "add":
            value = copy.deepcopy(operation["value"])  # injections share their parts
        else:
            raise LookupError(f"operation {operation['op']!r} is none of ours")
        _add(document, operation["path"], value)


def _add(document: Any, path: str, value: Any) -> None:
    parent, key = _parent(document, path)
    if isinstance(parent, list):
        position = len(parent) if key == "-" else int(key)
        if position > len(parent):
            raise LookupError(f"{path} is beyond the end of its list")
        parent.insert(position, value)
    else:
        parent[key] = value


def _take(document: Any, path: str) -> Any:
    parent, key = _parent(document, path)
    return parent.pop(int(key) if isinstance(parent, list) else key)


def _parent(document: Any, path: str) -> tuple[Any, str]:
    *parts, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    for part in parts:
        document = document[int(part) if isinstance(document, list) else part]
    return document, last
