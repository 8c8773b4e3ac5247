"""Typed reading of a mapping of environment variables; collects every problem before it fails."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from edgefarm.errors import SettingsError


class Environment:
    """Reads variables and remembers what was wrong, so that a user sees all mistakes at once.

    A method returns a usable value even after a problem; call `check()` when everything was read.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._problems: list[str] = []

    def check(self) -> None:
        """Raise SettingsError when any variable was missing or wrong."""
        if self._problems:
            raise SettingsError(self._problems)

    def problem(self, name: str, message: str) -> None:
        """Record that the variable `name` is wrong."""
        self._problems.append(f"{name} {message}")

    def text(self, name: str, default: str | None = None, *, choices: Collection[str] = ()) -> str:
        """A string; without a default the variable is required. An empty value counts as unset."""
        value = self._variables.get(name) or default
        if value is None:
            self.problem(name, "is not set")
            return ""
        if choices and value not in choices:
            self.problem(name, f"is {value!r}: write one of {', '.join(sorted(choices))}")
        return value

    def optional(self, name: str) -> str | None:
        """A string or None when unset or empty."""
        return self._variables.get(name) or None

    def integer(self, name: str, default: int, *, low: int = 0, high: int = 2**31 - 1) -> int:
        """A whole number between `low` and `high`."""
        value = self._variables.get(name) or str(default)
        try:
            number = int(value)
        except ValueError:
            self.problem(name, f"is {value!r}: write a whole number")
            return default
        if not low <= number <= high:
            self.problem(name, f"is {number}: write a number from {low} to {high}")
        return number

    def port(self, name: str, default: int) -> int:
        """A TCP port."""
        return self.integer(name, default, low=1, high=65535)

    def boolean(self, name: str, default: bool) -> bool:
        """`true` or `false`."""
        value = (self._variables.get(name) or str(default)).lower()
        if value not in ("true", "false"):
            self.problem(name, f"is {value!r}: write true or false")
        return value == "true"

    def duration(self, name: str, default: str) -> timedelta:
        """A duration such as 30s or 1h."""
        # Imported here: it brings decimal, which costs the sidecar some milliseconds at every start.
        from edgefarm.units import parse_duration

        value = self._variables.get(name) or default
        try:
            return parse_duration(value)
        except ValueError as error:
            self.problem(name, f"is wrong: {error}")
            return parse_duration(default)
