"""Owns NATS subjects and filters: what is valid, and which filter covers or overlaps which.

A filter is a subject whose tokens may be `*` (exactly one token) or, as the last token, `>` (one or more tokens).
"""

from __future__ import annotations

from typing import Final

from edgefarm.errors import InvalidSubject

#: Bytes. The server's limit is its control line (4096 bytes), which also has to hold a reply subject and sizes.
MAX_LENGTH: Final = 1024


def check_filter(pattern: object) -> str:
    """Return `pattern` when it is a subject or a filter, else raise InvalidSubject saying what is wrong."""
    if not isinstance(pattern, str):
        raise InvalidSubject(f"A subject must be a string, not {type(pattern).__name__}.")
    if not pattern:
        raise InvalidSubject("A subject must not be empty.")
    shown = repr(pattern if len(pattern) <= 100 else f"{pattern[:100]}…")
    if "{{" in pattern:
        # In a scoped key's template the server would replace {{name()}} by what the holder chose as its name.
        raise InvalidSubject(f"The subject {shown} contains '{{{{': templates are not supported in subjects.")
    for character in pattern:
        if character.isspace():
            raise InvalidSubject(f"The subject {shown} contains white space; separate its tokens with '.'.")
        if not character.isprintable():
            raise InvalidSubject(f"The subject {shown} contains a control or invisible character.")
    if len(pattern.encode()) > MAX_LENGTH:
        raise InvalidSubject(f"The subject {shown} is longer than {MAX_LENGTH} bytes.")
    tokens = pattern.split(".")
    if "" in tokens:
        raise InvalidSubject(
            f"The subject {shown} has an empty token: write something between, before and after its dots."
        )
    if ">" in tokens[:-1]:
        raise InvalidSubject(f"The subject {shown} has '>' in the middle; it may only be the last token.")
    return pattern


def covers(outer: str, inner: str) -> bool:
    """Whether every subject that `inner` matches is matched by `outer` too."""
    outside, inside = outer.split("."), inner.split(".")
    for one, other in zip(outside, inside, strict=False):
        if one == ">":
            return True
        if other == ">" or one not in ("*", other):
            return False
    return len(outside) == len(inside)


def overlaps(a: str, b: str) -> bool:
    """Whether some subject is matched by both filters."""
    left, right = a.split("."), b.split(".")
    for one, other in zip(left, right, strict=False):
        if ">" in (one, other):
            return True
        if one != other and "*" not in (one, other):
            return False
    return len(left) == len(right)


def intersection(a: str, b: str) -> str | None:
    """The filter that matches exactly what both match; None when they have nothing in common."""
    left, right = a.split("."), b.split(".")
    tokens: list[str] = []
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one == ">":
            return ".".join([*tokens, *right[index:]])
        if other == ">":
            return ".".join([*tokens, *left[index:]])
        if one != other and "*" not in (one, other):
            return None
        tokens.append(other if one == "*" else one)
    return ".".join(tokens) if len(left) == len(right) else None
