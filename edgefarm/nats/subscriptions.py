"""Owns how subscribe permissions must be written so that nats-server enforces them as they read.

When nats-server (2.15, `canSubscribe`) compares a subscription with the allow list it takes the subscription's `>` for
an ordinary word, which `*` matches: who may subscribe to `a.*` may subscribe to `a.>` and then receives `a.b.c`, too. A
deny of `a.*.>` beside it closes that hole, because denied subjects are also filtered on delivery. Where such a deny
would take away something that another allowed filter grants, the filter with `*` cannot be enforced and is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from edgefarm.nats.subjects import covers, overlaps


@dataclass(frozen=True)
class Subscriptions:
    """What a server must be told; `dropped` are the allowed filters that it cannot enforce and must not be told."""

    allow: frozenset[str]
    deny: frozenset[str]
    dropped: frozenset[str]


def enforceable(allow: Collection[str], deny: Collection[str]) -> Subscriptions:
    """The lists with which a server grants what `allow` without `deny` says, and never more."""
    guards: set[str] = set()
    dropped: set[str] = set()
    for pattern in allow:
        needed = _guards(pattern, allow, deny) if pattern.split(".")[-1] == "*" else set()
        if needed is None:
            dropped.add(pattern)
        else:
            guards |= needed
    return Subscriptions(frozenset(allow) - dropped, frozenset(deny) | guards, frozenset(dropped))


def _guards(pattern: str, allow: Collection[str], deny: Collection[str]) -> set[str] | None:
    """What to deny so that `pattern` means what it says; None when that would deny something else that is allowed."""
    guards: set[str] = set()
    excesses = [f"{pattern}.>"]
    if any(overlaps(excesses[0], allowed) for allowed in allow):
        excesses = list(_by_depth(pattern, max(allowed.count(".") for allowed in allow)))
    for excess in excesses:
        if any(covers(other, excess) for other in (*allow, *deny)):
            continue
        if any(overlaps(excess, allowed) for allowed in allow):
            return None
        guards.add(excess)
    return guards


def _by_depth(pattern: str, dots: int) -> Iterator[str]:
    """`pattern.>` in parts: one for each number of tokens up to `dots` + 1, and one for all longer subjects."""
    while pattern.count(".") < dots:
        pattern += ".*"
        yield pattern
    yield f"{pattern}.>"
