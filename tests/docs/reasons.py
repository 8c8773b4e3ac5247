"""Collects from the code every reason that users meet: of conditions, Events, denied pods and refused agents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from reconciler.desired.membership import Reason as MembershipReason

ROOT = Path(__file__).parents[2]
_REASON = re.compile(r"[A-Z][a-z]+[A-Za-z]*")
#: What makes values that carry a reason, and which of its arguments that is.
_MAKERS = {"Condition": 2, "Refusal": 0, "Advice": 0, "Template": 1, "Found": 3, "_not_ready": 0}
_REFUSALS_OF_AGENTS = {"Denied": 0}
#: Assigned to these, a text is the reason of a condition or of an Event.
_NAMES = re.compile(r"reason|_DRIFT|_?REASON(_[A-Z]+)*|_[A-Z]+_REASON")
#: Files that refuse agents, whose reasons no object shows.
_AGENTS = ("agent_admission.py", "agent_identity.py", "agent_service.py", "agents.py", "agentbus.py")


def of_conditions_and_events() -> set[str]:
    """Reasons of conditions and Events, also those that follow from an error's type."""
    found = {reason for path in _sources() if path.name not in _AGENTS for reason in _reasons(path, _MAKERS)}
    return found | {reason.value for reason in MembershipReason}


def of_refused_agents() -> set[str]:
    """Why an agent's registration is refused."""
    return {reason for path in _sources() if path.name in _AGENTS for reason in _reasons(path, _REFUSALS_OF_AGENTS)}


def _sources() -> Iterator[Path]:
    yield from sorted((ROOT / "reconciler").rglob("*.py"))
    yield ROOT / "edgefarm" / "agentbus.py"


def _reasons(path: Path, makers: dict[str, int]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Name(id=maker) | ast.Attribute(attr=maker)) if maker in makers:
                yield from _texts(node.args[makers[maker] : makers[maker] + 1])
                yield from _texts([word.value for word in node.keywords if word.arg == "reason"])
            case ast.Assign(targets=[*_, target], value=value):
                yield from _assigned(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield from _assigned(target, value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[str]:
    if not isinstance(target, ast.Name):
        return
    if target.id == "_FAILURES" and isinstance(value, ast.Tuple):
        yield from _texts([pair.elts[1] for pair in value.elts if isinstance(pair, ast.Tuple)])
    elif _NAMES.fullmatch(target.id):
        yield from _texts([value])


def _texts(values: list[ast.expr]) -> Iterator[str]:
    for value in values:
        match value:
            case ast.Constant(value=str(text)) if _REASON.fullmatch(text):
                yield text
            case ast.IfExp(body=body, orelse=orelse):
                yield from _texts([body, orelse])
