"""A thread that does one job after the other: what blocks, and what must not happen at the same time."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Job:
    do: Callable[[], Any]
    future: Future[Any]


class Worker:
    """Runs jobs in the order in which they come.

    The thread lives as long as the process: the kernel ends the children that a job starts with the thread that started
    them. It does not keep the process from ending, even in the middle of a job.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, do: Callable[[], T]) -> T:
        """The result of `do()`. Who is cancelled while the job waits takes it back; one that has begun is finished."""
        return await asyncio.wrap_future(self.submit(do))

    def submit(self, do: Callable[[], T]) -> Future[T]:
        """What will be the result of `do()`, for who is no coroutine."""
        future: Future[T] = Future()
        self._jobs.put(_Job(do, future))
        return future

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = job.do()
            except BaseException as error:  # noqa: BLE001 (it is raised again where the result is waited for)
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
