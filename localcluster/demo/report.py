"""Tells a person (or, as JSON lines, a program) what each step of a demo did, how long it took and whether it held."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console
from rich.table import Table


class CheckFailed(Exception):
    """What a step shows is not as it must be; the message says what was seen."""


@dataclass(frozen=True)
class Outcome:
    """One step that was carried out."""

    step: str
    ok: bool
    seconds: float
    detail: str


class Output(Protocol):
    """Where outcomes go."""

    def begin(self, step: str) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self, outcome: Outcome) -> None: ...

    def summary(self, outcomes: list[Outcome], seconds: float) -> None: ...


@dataclass
class Report:
    """Runs steps, remembers their outcomes and stops at the first that fails."""

    output: Output
    outcomes: list[Outcome] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    async def step(self, title: str, work: Awaitable[str]) -> None:
        """Await `work`, whose result is one sentence of detail. Its failure is recorded and raised again."""
        self.output.begin(title)
        started = time.monotonic()
        try:
            detail = await work
        except BaseException as error:
            self._record(Outcome(title, False, time.monotonic() - started, _describe(error)))
            raise
        self._record(Outcome(title, True, time.monotonic() - started, detail))

    def close(self) -> bool:
        """Print the closing table; True when every step held."""
        self.output.summary(self.outcomes, time.monotonic() - self._started)
        return bool(self.outcomes) and all(outcome.ok for outcome in self.outcomes)

    def _record(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.output.end(outcome)


class JsonOutput:
    """One JSON object per step, and a last one with `summary`."""

    def begin(self, step: str) -> None:
        """Nothing: a step is one line, when it is over."""

    def note(self, text: str) -> None:
        """Nothing: notes are for people."""

    def end(self, outcome: Outcome) -> None:
        _print_json(
            {
                "step": outcome.step,
                "ok": outcome.ok,
                "seconds": round(outcome.seconds, 3),
                "detail": outcome.detail,
            }
        )

    def summary(self, outcomes: list[Outcome], seconds: float) -> None:
        failed = [outcome.step for outcome in outcomes if not outcome.ok]
        _print_json(
            {
                "summary": {
                    "ok": bool(outcomes) and not failed,
                    "steps": len(outcomes),
                    "failed": failed,
                    "seconds": round(seconds, 3),
                }
            }
        )


class TextOutput:
    """Lines as the steps go on, and a table at the end."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def begin(self, step: str) -> None:
        self._console.print(f"[bold]→[/bold] {step}")

    def note(self, text: str) -> None:
        self._console.print(text, style="dim", markup=False, soft_wrap=True)

    def end(self, outcome: Outcome) -> None:
        mark = "[green]✓[/green]" if outcome.ok else "[red]✗[/red]"
        self._console.print(f"  {mark} ", end="")
        self._console.print(f"{outcome.detail} ({outcome.seconds:.1f} s)", markup=False, soft_wrap=True)

    def summary(self, outcomes: list[Outcome], seconds: float) -> None:
        table = Table(title="What was shown and checked")
        for column in ("", "step", "seconds"):
            table.add_column(column, justify="right" if column == "seconds" else "left")
        for outcome in outcomes:
            mark = "[green]✓[/green]" if outcome.ok else "[red]✗[/red]"
            table.add_row(mark, outcome.step, f"{outcome.seconds:.1f}")
        table.add_section()
        table.add_row("", "all steps", f"{seconds:.1f}")
        self._console.print(table)


def _describe(error: BaseException) -> str:
    return str(error) or ("interrupted" if not isinstance(error, Exception) else type(error).__name__)


def _print_json(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201
