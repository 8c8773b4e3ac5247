"""`edgefarm webhook`: what the webhook would do to a pod, without a cluster."""

from __future__ import annotations

import typer

from cli.session import CONTEXT_SETTINGS, examples


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(no_args_is_help=True, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)
    group.callback(epilog=examples("edgefarm webhook inject --diff deployment.yaml"))(_group)
    group.command(
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        short_help="Show what the webhook makes of a manifest.",
    )(inject)
    app.add_typer(group, name="webhook")


def _group() -> None:
    """Try the admission webhook."""


def inject(ctx: typer.Context) -> None:
    """Show what the webhook makes of a manifest; arguments and behaviour are those of `python -m webhook inject`."""
    from webhook import inject_command

    raise typer.Exit(inject_command.main(ctx.args, program="edgefarm webhook inject"))
