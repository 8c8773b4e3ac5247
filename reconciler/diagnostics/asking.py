"""Makes a value of an outside call's failure, and bounds how long the call may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from edgefarm.errors import EdgefarmError, NoAnswer

T = TypeVar("T")


async def asked(call: Awaitable[T], seconds: float) -> T | EdgefarmError:
    """What the call returned or raised; NoAnswer when it takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError:
        return NoAnswer(f"no answer within {seconds:g} s")
    except EdgefarmError as error:
        return error
