"""Decides which edge hosts try a direct tunnel with each other: a ring, so that one that joins changes few others."""

from __future__ import annotations

from bisect import bisect_left, insort
from hashlib import sha256


class Partners:
    """Edge hosts in a ring, ordered by a digest of their names; the partners of each are its nearest on both sides.

    That is mutual, and each has at most as many as `of` is told. A host that joins changes its own partners only; each
    of them gives up the partner that is now one too far.
    """

    def __init__(self) -> None:
        self._ring: list[tuple[bytes, str]] = []

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, device: str) -> None:
        """Let the device have partners; nothing happens when it is there already."""
        place = _place(device)
        if not self._holds(place):
            insort(self._ring, place)

    def remove(self, device: str) -> None:
        """Take the device out; nothing happens when it is not there."""
        place = _place(device)
        if self._holds(place):
            del self._ring[bisect_left(self._ring, place)]

    def of(self, device: str, most: int) -> tuple[str, ...]:
        """The device's partners, at most `most`, by name; none for a device that was not added.

        All others while there are no more than `most`; beyond that an odd `most` counts as one less.
        """
        place = _place(device)
        if not self._holds(place):
            return ()
        size = len(self._ring)
        index = bisect_left(self._ring, place)
        side = size if size - 1 <= most else most // 2
        steps = (step for step in range(-side, side + 1) if step)
        near = {self._ring[(index + step) % size][1] for step in steps}
        return tuple(sorted(near - {device}))

    def _holds(self, place: tuple[bytes, str]) -> bool:
        index = bisect_left(self._ring, place)
        return index < len(self._ring) and self._ring[index] == place


def _place(device: str) -> tuple[bytes, str]:
    return sha256(device.encode()).digest()[:8], device
