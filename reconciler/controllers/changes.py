"""Decides which changes of an object matter to whom, so that status writes and finalizers wake nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.ports import Object


def worth_a_look(old: Object | None, new: Object | None) -> bool:
    """Whether a change may concern anybody but readers of the status; equal objects, as at a resync, always do."""
    if old is None or new is None or old["metadata"].get("resourceVersion") == new["metadata"].get("resourceVersion"):
        return True
    return _without_status(old) != _without_status(new)


def reaches_others(old: Object | None, new: Object | None) -> bool:
    """Whether a change of a Network may concern more than itself: not its finalizers, for example."""
    if old is None or new is None:
        return True
    return old.get("spec") != new.get("spec") or _is_ending(old) != _is_ending(new)


def _is_ending(obj: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _without_status(obj: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    return {**{name: value for name, value in obj.items() if name != "status"}, "metadata": metadata}
