"""Owns how long to wait before the next attempt. Pure: randomness is passed in."""

from __future__ import annotations

from collections.abc import Callable


class Backoff:
    """Longer and longer, and never all agents at the same time: somewhere between half of a step and all of it."""

    def __init__(self, first: float, most: float, chance: Callable[[], float]) -> None:
        """Seconds of the first step and of the longest; `chance` gives numbers from 0 to 1."""
        self._first = first
        self._most = most
        self._chance = chance
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait now."""
        # More doublings would overflow before they mattered.
        step = min(self._most, self._first * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return step * (0.5 + self._chance() / 2)

    def reset(self) -> None:
        """The attempt was a success."""
        self._failures = 0
