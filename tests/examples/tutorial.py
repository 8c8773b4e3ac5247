"""Reads the commands of a page: blocks of type `console`, prompt `$`, with the output that the page shows below."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

#: What the tests of localcluster and the chart carry out: the page shows it, and nothing here runs it again.
ELSEWHERE = ("make ", "helm ", "edgefarm doctor ")
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A line to type, and words that must come out of it."""

    line: str
    shows: tuple[str, ...] = ()

    @property
    def only_looks(self) -> bool:
        """Whether it can be repeated until it shows what it shall."""
        return bool({"get", "logs", "describe", "status"} & set(shlex.split(self.line)))


def commands(page: Path) -> list[Command]:
    """The commands of a page in their order; `…` in a line of output stands for anything."""
    found: list[Command] = []
    for block in _BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line.removeprefix("$ ").partition("   #")[0].strip()))
            else:
                words = tuple(word for word in re.split(r"…|\s{2,}", line.strip()) if word)
                found[-1] = Command(found[-1].line, (*found[-1].shows, *words))
    return [command for command in found if not command.line.startswith(ELSEWHERE)]
