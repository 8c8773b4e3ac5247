"""Reads raw JSON field by field and says which field is wrong; shared by all resource types and the configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from edgefarm.errors import EdgefarmError, InvalidResource
from edgefarm.units import parse_duration, parse_quantity

T = TypeVar("T")


class Fields:
    """One JSON object of a user, with its path for messages. Unknown members are refused when `closed()` is called."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidResource(path, f"must be an object, not {_kind(value)}")
        self._value = value
        self._path = path
        self._known: set[str] = set()

    def path(self, name: str) -> str:
        """The full path of a member, as users write it."""
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        """Whether the member is present and not null."""
        self._known.add(name)
        return self._value.get(name) is not None

    def child(self, name: str) -> Fields:
        """A nested object; an absent one reads as empty."""
        return Fields(self._value[name] if self.has(name) else {}, self.path(name))

    def text(self, name: str, default: str | None = None) -> str:
        """A string; required without a default."""
        value = self.optional(name)
        if value is not None:
            return value
        if default is None:
            raise InvalidResource(self.path(name), "is required")
        return default

    def optional(self, name: str) -> str | None:
        """A string or None."""
        return self._typed(name, str, "a string") if self.has(name) else None

    def boolean(self, name: str, default: bool) -> bool:
        """`true` or `false`."""
        return self._typed(name, bool, "true or false") if self.has(name) else default

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        if not self.has(name):
            return default
        value = self._typed(name, int, "a whole number")
        if isinstance(value, bool) or not low <= value <= high:
            raise InvalidResource(self.path(name), f"must be a whole number from {low} to {high}, not {value}")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self.text(name, default)
        if value not in choices:
            raise InvalidResource(self.path(name), f"{value!r} is not known: write {' or '.join(choices)}")
        return value

    def mapping(self, name: str) -> dict[str, str]:
        """An object whose members are all strings, such as labels."""
        if not self.has(name):
            return {}
        value = self._typed(name, dict, "an object")
        for key, item in value.items():
            if not isinstance(key, str) or not isinstance(item, str):
                raise InvalidResource(f"{self.path(name)}.{key}", f"must be a string, not {_kind(item)}")
        return dict(value)

    def objects(self, name: str) -> tuple[Fields, ...]:
        """A list of objects."""
        if not self.has(name):
            return ()
        items = self._typed(name, list, "a list of objects")
        return tuple(Fields(item, f"{self.path(name)}[{index}]") for index, item in enumerate(items))

    def texts(self, name: str, check: Callable[[str], object] | None = None) -> tuple[str, ...]:
        """A list of strings; `check` raises an EdgefarmError for a wrong one, whose index is then named."""
        if not self.has(name):
            return ()
        items = self._typed(name, list, "a list of strings")
        for index, item in enumerate(items):
            path = f"{self.path(name)}[{index}]"
            if not isinstance(item, str):
                raise InvalidResource(path, f"must be a string, not {_kind(item)}")
            if check is not None:
                _checked(path, check, item)
        return tuple(items)

    def quantity(self, name: str) -> int | None:
        """A Kubernetes quantity in whole bytes, or None."""
        return self._converted(name, parse_quantity)

    def converted(self, name: str, convert: Callable[[Any], T]) -> T | None:
        """What `convert` makes of the member (it raises ValueError or an EdgefarmError for a wrong one), or None."""
        return self._converted(name, convert)

    def duration(self, name: str) -> timedelta | None:
        """A positive duration, or None."""
        value = self._converted(name, parse_duration)
        if value is not None and value <= timedelta(0):
            raise InvalidResource(self.path(name), "must be longer than zero")
        return value

    def closed(self) -> None:
        """Raise for members that nothing has asked for: a typing mistake must not be ignored."""
        unknown = sorted(set(self._value) - self._known)
        if unknown:
            raise InvalidResource(
                self.path(unknown[0]), f"is not known; known here: {', '.join(sorted(self._known))}", "UnknownField"
            )

    def _converted(self, name: str, convert: Callable[[Any], T]) -> T | None:
        return _checked(self.path(name), convert, self._value[name]) if self.has(name) else None

    def _typed(self, name: str, kind: type[T], what: str) -> T:
        value = self._value[name]
        if not isinstance(value, kind):
            raise InvalidResource(self.path(name), f"must be {what}, not {_kind(value)}")
        return value


def read_time(value: Any, path: str) -> datetime:
    """An RFC 3339 time with a zone, as Kubernetes writes it."""
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time
    except (TypeError, ValueError):
        pass
    raise InvalidResource(path, f"{value!r} is not a time: write for example 2026-01-31T12:00:00Z")


def _checked(path: str, convert: Callable[[Any], T], value: Any) -> T:
    try:
        return convert(value)
    except (ValueError, EdgefarmError) as error:
        raise InvalidResource(path, str(error)) from error


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
