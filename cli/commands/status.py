"""`edgefarm status`: what is installed and how it is."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.session import CONTEXT_SETTINGS, Session, examples, with_session


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples("edgefarm status", "edgefarm status plant-a -A", "edgefarm status -o json | jq .healthy"),
    )
    @with_session
    def status(
        session: Session,
        network: Annotated[str | None, typer.Argument(metavar="NETWORK", help="Only this network.")] = None,
    ) -> None:
        """Show networks, policies, edge networks, streams and devices, unhealthy ones first."""
        session.output.show({"ns": session.namespace, "network": network}, lambda: [session.namespace])
