"""Owns the text of nats-server configurations: what a server must be told to accept our operator's accounts."""

from __future__ import annotations

import json
from typing import Final

#: Account JWTs that a resolver keeps; far beyond what one hub serves, but a bound on its disk.
RESOLVER_LIMIT: Final = 100_000


def hub_config(
    *,
    operator_jwt: str,
    system_account: str,
    system_account_jwt: str,
    resolver_dir: str,
    sync_interval_seconds: int = 60,
) -> str:
    """The part of a hub server's configuration that is about identity: operator, SYS account and full resolver.

    Every server of the hub keeps all account JWTs in `resolver_dir` and compares them with the others each
    `sync_interval_seconds`. Listeners, TLS, JetStream and clustering are for the caller to add.
    """
    return f"""\
operator: {_quoted(operator_jwt)}
system_account: {_quoted(system_account)}
resolver: {{
  type: full
  dir: {_quoted(resolver_dir)}
  allow_delete: true
  interval: "{sync_interval_seconds}s"
  limit: {RESOLVER_LIMIT}
  timeout: "2s"
}}
resolver_preload: {{
  {_quoted(system_account)}: {_quoted(system_account_jwt)}
}}
"""


def _quoted(text: str) -> str:
    # A JSON string is a NATS configuration string as long as it needs no \\u escape, which the lexer does not know.
    if not text.isprintable():
        raise ValueError("a configuration value must not contain control characters")
    return json.dumps(text, ensure_ascii=False)
