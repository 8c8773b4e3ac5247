"""Runs independent outside calls at the same time, and equal ones once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar, overload

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


class NextRound(Generic[A]):
    """Answers everybody who asks with one call that begins after they asked, so nobody gets an answer from before.

    While a call is under way those who ask are collected for the next one.
    """

    def __init__(self, call: Callable[[], Awaitable[A]]) -> None:
        self._call = call
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[A] | None = None

    async def get(self) -> A:
        """The result of the next call, or its error."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._round())
        # One caller that is cancelled must not take the answer from the others.
        return await asyncio.shield(self._next)

    async def _round(self) -> A:
        async with self._turn:
            self._next = None
            return await self._call()
