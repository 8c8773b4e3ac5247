"""Decides when a leaf's round trip has changed enough to be worth a line in a status, and how it is written there."""

from __future__ import annotations

from typing import Final

#: A round trip has changed when it has by both of these: seconds, and a factor.
_STEP: Final = 0.005
_FACTOR: Final = 2.0


def has_moved(old: float, new: float) -> bool:
    """Whether `new` seconds tell something else than `old`; 0 is "not measured" and never replaces a measured one."""
    if new <= 0 or old <= 0:
        return new > 0
    return abs(new - old) > _STEP and max(new, old) > _FACTOR * min(new, old)


def write_round_trip(seconds: float, before: str) -> str:
    """In whole milliseconds, at least 1ms; `before` stays while the round trip has not moved; empty: not measured."""
    old = _read(before)
    if not has_moved(old, seconds):
        return before
    return f"{max(1, round(seconds * 1000))}ms"


def _read(text: str) -> float:
    number = text.removesuffix("ms")
    return int(number) / 1000 if number.isdecimal() else 0.0
