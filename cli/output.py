"""How results look: tables for people, at most 100 columns wide, JSON and YAML for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table as Grid

TABLE: Final = "table"
FORMATS: Final = (TABLE, "json", "yaml")
#: Columns of a terminal that everything fits into.
WIDTH: Final = 100


class Health(IntEnum):
    """How something is; the worst comes first in tables."""

    BAD = 0
    DOUBTFUL = 1
    GOOD = 2


_COLOURS: Final = {Health.BAD: "red", Health.DOUBTFUL: "yellow", Health.GOOD: ""}


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    cells: tuple[str, ...]
    health: Health = Health.GOOD


@dataclass(frozen=True)
class Note:
    """A sentence below a table, over the whole width."""

    text: str
    health: Health


@dataclass(frozen=True)
class Table:
    """A titled table; without rows `empty` is shown instead. Text of `wide` columns may take several lines."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    empty: str = "none"
    wide: tuple[str, ...] = ()
    notes: Sequence[Note] = ()


class Output:
    """Shows the result of a command on stdout, in one form."""

    def __init__(self, form: str, stream: TextIO | None = None) -> None:
        self.form = form
        self._stream = stream

    @property
    def for_programs(self) -> bool:
        """Whether the result is read by a program."""
        return self.form != TABLE

    def show(self, document: Mapping[str, Any], for_people: Callable[[], Iterable[Table | str]]) -> None:
        """The document as JSON or YAML, or what people get to see: tables and lines of text."""
        stream = self._stream or sys.stdout
        if self.form == "json":
            stream.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        elif self.form == "yaml":
            import yaml

            stream.write(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=WIDTH))
        else:
            self._print(for_people())

    def _print(self, parts: Iterable[Table | str]) -> None:
        console = self._console()
        for part in parts:
            if isinstance(part, str):
                console.print(part, markup=False, highlight=False)
            else:
                _print_table(console, part)

    def _console(self) -> Console:
        from rich.console import Console

        console = Console(file=self._stream, soft_wrap=False)
        # Files and pipes have no width of their own.
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
        return console


def _print_table(console: Console, table: Table) -> None:
    from rich.text import Text

    console.print(Text(table.title, style="bold"))
    if table.rows:
        _print_indented(console, _grid(table))
    else:
        _print_indented(console, Text(table.empty, style="dim"))
    for note in sorted(table.notes, key=lambda note: note.health):
        _print_indented(console, Text(note.text, style=_COLOURS[note.health]))
    console.print()


def _print_indented(console: Console, part: RenderableType) -> None:
    from rich.padding import Padding

    console.print(Padding(part, (0, 0, 0, 2), expand=False))


def _grid(table: Table) -> Grid:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns:
        wide = column in table.wide
        grid.add_column(column, no_wrap=not wide, overflow="fold" if wide else "ellipsis")
    for row in sorted(table.rows, key=lambda row: row.health):
        grid.add_row(*(Text(cell, style=_COLOURS[row.health]) for cell in row.cells))
    return grid


def shortened(text: str, longest: int) -> str:
    """The text on one line, cut where it is longer."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
