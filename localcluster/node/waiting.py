"""Waits for an event for a limited time, without ever losing a cancellation."""

from __future__ import annotations

import asyncio
import contextlib


async def set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Return when `event` is set, or after `seconds` (None: never).

    Not `asyncio.wait_for`, which in Python 3.11 returns as if nothing had happened when its task is cancelled in the
    moment in which the event is set: a task of a pod that is being deleted would go on for ever.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
