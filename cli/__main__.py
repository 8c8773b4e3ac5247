"""The command `edgefarm`: puts its commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.commands import register_all
from cli.session import CONTEXT_SETTINGS, RootGroup, Session, examples, with_session
from edgefarm import __version__


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgefarm-network {__version__}")
        raise typer.Exit


@with_session
def _root(
    _session: Session,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Private NATS networks for Kubernetes workloads and edge nodes: what is there, whether it works, and why not.

    Exit status: 0 fine, 1 something is wrong with what was asked about, 2 wrong usage, 3 the cluster (or Vault) cannot
    be reached or refuses.
    """


def build() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(
        name="edgefarm",
        cls=RootGroup,
        context_settings=CONTEXT_SETTINGS,
        no_args_is_help=True,
        # Tracebacks would show the values of variables, and some hold secrets.
        pretty_exceptions_enable=False,
        # Plain help can be read everywhere and costs no import.
        rich_markup_mode=None,
    )
    app.callback(epilog=examples("edgefarm status", "edgefarm trace sensor-0 -n shop"))(_root)
    register_all(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    build()(prog_name="edgefarm")


if __name__ == "__main__":
    main()
