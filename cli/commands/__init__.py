"""One module per command of `edgefarm`."""

from __future__ import annotations

import typer

from cli.commands import creds, demo, doctor, nats, status, trace, vault, webhook


def register_all(app: typer.Typer) -> None:
    """Add every command, in the order in which help lists them."""
    for module in (status, doctor, trace, creds, vault, nats, webhook, demo):
        module.register(app)
