"""How findings look, and which exit status they mean. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from cli.output import WIDTH
from cli.session import UNHEALTHY, UNREACHABLE
from edgefarm.findings import Code, Finding, Status

_MARKS: Final = {Status.OK: "✓", Status.WARNING: "!", Status.ERROR: "✗", Status.UNKNOWN: "?"}
_WORDS: Final = {Status.ERROR: "wrong", Status.WARNING: "doubtful", Status.UNKNOWN: "not known"}


def document_of(findings: Sequence[Finding]) -> Mapping[str, Any]:
    """The findings for programs; each with where the documentation says more."""
    return {
        "healthy": status_of(findings, strict=False) == 0,
        "findings": [{**finding.document(), "runbook": finding.runbook} for finding in findings],
    }


def lines_of(findings: Sequence[Finding]) -> Iterable[str]:
    """One line for each finding, and below those that are not fine what to do."""
    for finding in findings:
        yield _wrapped(f"{_MARKS[finding.status]} {finding.subject}: {finding.message}", "  ")
        if finding.status is not Status.OK:
            if finding.advice:
                yield _wrapped(f"    → {finding.advice}", "      ")
            yield f"      {finding.runbook}"
    yield ""
    yield _summary(findings)


def status_of(findings: Sequence[Finding], *, strict: bool) -> int:
    """1 for something wrong (`strict`: or doubtful), else 3 where something could not be looked at, else 0."""
    if any(finding.code == Code.API_UNREACHABLE for finding in findings):
        return UNREACHABLE
    bad = (Status.ERROR, Status.WARNING) if strict else (Status.ERROR,)
    if any(finding.status in bad for finding in findings):
        return UNHEALTHY
    return UNREACHABLE if any(finding.status is Status.UNKNOWN for finding in findings) else 0


def _summary(findings: Sequence[Finding]) -> str:
    counts = {word: sum(each.status is status for each in findings) for status, word in _WORDS.items()}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    return f"{len(findings)} checks: {told or 'all is well'}"


def _wrapped(text: str, indent: str) -> str:
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
