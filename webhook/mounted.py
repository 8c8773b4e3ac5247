"""Follows files that kubelet mounts into the webhook's pod and exchanges while it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

#: Kubelet takes up to a minute to write a changed object into a pod; a second more or less does not matter.
_INTERVAL: Final = 1.0


class Mounted(Protocol):
    """What is loaded from such files."""

    @property
    def loaded(self) -> bool:
        """Whether there is something to work with."""

    def refresh(self) -> bool:
        """Load the files if they changed since the last look; whether something new came into use."""


async def follow(parts: tuple[Mounted, ...], ready: asyncio.Event) -> None:
    """Refresh for ever; `ready` is set as soon as every part is loaded."""
    while True:
        for part in parts:
            part.refresh()
        if all(part.loaded for part in parts):
            ready.set()
        await asyncio.sleep(_INTERVAL)


def stamp(*files: Path) -> object:
    """Identity of the files' contents, or None while one is missing. Follows kubelet's symbolic links."""
    try:
        # The time of the last change, unlike that of the contents, shows new permissions, too.
        return tuple((stat.st_ino, stat.st_ctime_ns, stat.st_size) for stat in (file.stat() for file in files))
    except OSError:
        return None
