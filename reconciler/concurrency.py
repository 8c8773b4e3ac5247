"""Runs independent outside calls at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


async def all_of(calls: Iterable[Awaitable[A]]) -> list[A]:
    """The results in order. All calls end before the first error (in that order) is raised, so none is left behind."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    done: list[A] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done


@overload
async def together(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def together(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], d: Awaitable[D], /) -> tuple[A, B, C, D]: ...
async def together(*calls: Awaitable[Any]) -> tuple[Any, ...]:
    """`all_of` for calls with results of different types."""
    return tuple(await all_of(calls))
