"""What one run of a container printed: where it stands in the container's log file, and how parts of it are read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

_BLOCK: Final = 64 * 1024
_POLL_SECONDS: Final = 0.1
_NEEDS_TIMES: Final = ("timestamps", "sinceSeconds", "sinceTime")


class LogRefused(Exception):
    """A log cannot be given as it was asked for; the message says why."""


@dataclass(frozen=True)
class LogOptions:
    """Which part of a log is wanted: the last `tail` lines of it, and of those the first `limit` bytes."""

    follow: bool = False
    previous: bool = False
    tail: int | None = None
    limit: int | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Self:
        """From the query of PodLogOptions; raises LogRefused for what a file without times cannot tell."""
        for name in _NEEDS_TIMES:
            if query.get(name, "false") != "false":
                raise LogRefused(f"{name} is not supported: the node runner does not know when a line was printed")
        if query.get("stream", "All") != "All":
            raise LogRefused("stream is not supported: the node runner keeps output and errors in one file")
        return cls(
            query.get("follow") == "true",
            query.get("previous") == "true",
            _number(query, "tailLines"),
            _number(query, "limitBytes"),
        )


@dataclass
class Output:
    """The bytes from `start` to `end` of a log file; more may come while `end` is None."""

    log: Path
    start: int
    end: int | None = None

    @classmethod
    def begin(cls, log: Path) -> Self:
        """The output of a run that is about to start: what will be appended to the file from now on."""
        return cls(log, log.stat().st_size if log.exists() else 0)

    def finish(self) -> None:
        """Take note that the run has ended."""
        self.end = self.log.stat().st_size

    async def read(self, options: LogOptions) -> AsyncIterator[bytes]:
        """The wanted part in pieces; with `follow`, until the run has ended."""
        with self.log.open("rb") as file:
            present = self._present_end(file)
            position = await asyncio.to_thread(_tail_start, file, self.start, present, options.tail)
            bound = float("inf") if options.limit is None else position + options.limit
            file.seek(position)
            while True:
                ended = self.end is not None
                end = min(self._present_end(file), bound)
                while position < end and (piece := file.read(int(min(_BLOCK, end - position)))):
                    position += len(piece)
                    yield piece
                if ended or not options.follow or position >= bound:
                    return
                await asyncio.sleep(_POLL_SECONDS)

    def _present_end(self, file: BinaryIO) -> int:
        return os.fstat(file.fileno()).st_size if self.end is None else self.end


def _tail_start(file: BinaryIO, start: int, end: int, lines: int | None) -> int:
    """Where the last `lines` lines between `start` and `end` begin."""
    if lines is None:
        return start
    if lines == 0:
        return end
    position = end - 1  # the newline that ends the last line separates it from nothing
    while position > start:
        begin = max(start, position - _BLOCK)
        file.seek(begin)
        block = file.read(position - begin)
        found = block.count(b"\n")
        if found >= lines:
            return begin + len(block.rsplit(b"\n", lines)[0]) + 1
        lines, position = lines - found, begin
    return start


def _number(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name)
    if value is not None and not value.isdecimal():
        raise LogRefused(f"{name} must be a whole number, 0 or more")
    return None if value is None else int(value)
