"""Compares a desired object with the one that the API server holds, which has defaults and what others added in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

#: Maps of strings, where an addition changes the meaning.
_EXACT: Final = frozenset({"nodeSelector", "matchLabels"})


#: What an object in a list does not say of itself.
_TYPE: Final = frozenset({"apiVersion", "kind"})


def is_as_desired(actual: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    """Whether everything that is desired is there.

    A member that is not spoken of may hold anything: the API server's defaults, annotations of others. One that is
    desired empty (or None) must be empty or absent, and lists have exactly the desired items in their order.
    """
    return _holds(actual, {name: value for name, value in desired.items() if name not in _TYPE})


def _holds(actual: Any, desired: Any) -> bool:
    if desired is None or desired in ({}, [], ""):
        return not actual
    if isinstance(desired, Mapping):
        return isinstance(actual, Mapping) and all(
            _member_holds(name, actual.get(name), value) for name, value in desired.items()
        )
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        return (
            isinstance(actual, Sequence)
            and len(actual) == len(desired)
            and all(_holds(*pair) for pair in zip(actual, desired, strict=True))
        )
    return bool(actual == desired)


def _member_holds(name: str, actual: Any, desired: Any) -> bool:
    return (actual or {}) == desired if name in _EXACT else _holds(actual, desired)
