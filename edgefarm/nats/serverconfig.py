"""Owns the text of nats-server configurations: what a server must be told to accept our operator's accounts."""

from __future__ import annotations

from typing import Final

from edgefarm.nats.quoting import quoted

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
operator: {quoted(operator_jwt)}
system_account: {quoted(system_account)}
resolver: {{
  type: full
  dir: {quoted(resolver_dir)}
  allow_delete: true
  interval: "{sync_interval_seconds}s"
  limit: {RESOLVER_LIMIT}
  timeout: "2s"
}}
resolver_preload: {{
  {quoted(system_account)}: {quoted(system_account_jwt)}
}}
"""
