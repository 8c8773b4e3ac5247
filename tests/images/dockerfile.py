"""Reads the Dockerfile: stages, their instructions in order, and what the build context holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    word: str
    text: str

    @property
    def exec_form(self) -> list[str] | None:
        """The arguments of the JSON form; None where a shell would read the text."""
        return json.loads(self.text) if self.text.startswith("[") else None


@dataclass
class Stage:
    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def last(self, word: str) -> str | None:
        return next((step.text for step in reversed(self.instructions) if step.word == word), None)


def read_stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """The stages by name."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = text.partition(" AS ")
            stage = stages[name] = Stage(name, base)
        elif stage is not None:
            stage.instructions.append(Instruction(word, text.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and those that it begins from, the first one first."""
    stage = stages[name]
    return [*(lineage(stages, stage.base) if stage.base in stages else []), stage]


def copies(stage: Stage) -> list[tuple[str | None, str, str]]:
    """(stage to copy from, source, target) of each COPY."""
    found = []
    for step in stage.instructions:
        if step.word == "COPY":
            *options, source, target = shlex.split(step.text)
            other = next((text.removeprefix("--from=") for text in options if text.startswith("--from=")), None)
            found.append((other, source, target))
    return found


def in_context(path: Path) -> bool:
    """Whether .dockerignore lets a file into the build; the last rule that fits decides, as Docker says it does."""
    relative, included = path.relative_to(ROOT), True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, keep = line.removeprefix("!"), line.startswith("!")
        parts = [str(relative), *(str(parent) for parent in relative.parents)]
        if any(_fits(part, pattern) for part in parts if part != "."):
            included = keep
    return included


def _fits(text: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch(text.rpartition("/")[2], pattern.removeprefix("**/"))
    return text.count("/") == pattern.count("/") and fnmatch(text, pattern)
