"""Calls that run at the same time."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.concurrency import NextRound, all_of


async def test_all_calls_end_before_an_error_is_raised() -> None:
    ended: list[int] = []

    async def call(number: int) -> None:
        await asyncio.sleep(0)
        if number == 1:
            raise ValueError
        ended.append(number)

    with pytest.raises(ValueError):
        await all_of(call(number) for number in range(4))
    assert ended == [0, 2, 3]


async def test_nobody_gets_an_answer_from_before_they_asked() -> None:
    begun, started, gates = 0, asyncio.Event(), [asyncio.Event(), asyncio.Event()]

    async def call() -> int:
        nonlocal begun
        begun += 1
        started.set()
        mine = begun
        await gates[mine - 1].wait()
        return mine

    shared = NextRound(call)
    first = asyncio.create_task(shared.get())
    await started.wait()
    later = [asyncio.create_task(shared.get()) for _ in range(3)]
    await asyncio.sleep(0)
    later[0].cancel()
    for gate in gates:
        gate.set()
    assert await first == 1
    assert await asyncio.gather(*later[1:]) == [2, 2]
    assert begun == 2


async def test_an_error_reaches_everybody_and_is_not_remembered() -> None:
    answers: list[int] = []

    async def call() -> int:
        answers.append(5)
        if len(answers) == 1:
            raise ValueError
        return answers[-1]

    shared = NextRound(call)
    results = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
    assert await shared.get() == 5
