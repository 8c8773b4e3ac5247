"""One module per command of `edgefarm`."""

from __future__ import annotations

import typer

from cli.commands import status, trace


def register_all(app: typer.Typer) -> None:
    """Add every command, in the order in which help lists them."""
    for module in (status, trace):
        module.register(app)
