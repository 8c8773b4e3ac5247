"""How text becomes a value in a nats-server configuration."""

from __future__ import annotations

import json


def quoted(text: str) -> str:
    """The text as one string value; ValueError when it holds what a configuration cannot.

    A JSON string is a NATS configuration string as long as it needs no \\u escape, which the lexer does not know.
    """
    if not text.isprintable():
        raise ValueError("a configuration value must not contain control characters")
    return json.dumps(text, ensure_ascii=False)
