"""`edgefarm nats`: what the main NATS servers have to be told."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.commands.options import KvMountOption
from cli.session import CONTEXT_SETTINGS, Session, examples
from edgefarm import names


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(no_args_is_help=True, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)
    group.callback(epilog=examples("edgefarm nats config > operator.conf"))(_group)
    group.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples("edgefarm nats config > operator.conf", "edgefarm nats config --resolver-dir /data/jwt"),
    )(config)
    app.add_typer(group, name="nats")


def _group() -> None:
    """Configure the main NATS servers."""


def config(
    resolver_dir: Annotated[
        str, typer.Option("--resolver-dir", metavar="DIR", help="The servers' folder for account JWTs.")
    ] = "/data/resolver",
    kv_mount: KvMountOption = names.DEFAULT_KV_MOUNT,
) -> None:
    """Print what makes the main NATS servers trust our operator.

    That part of their configuration is read from Vault, where `edgefarm vault bootstrap` has put it, with your own
    login (VAULT_ADDR and VAULT_TOKEN or ~/.vault-token), and holds no secret. Listeners, TLS and JetStream are for you
    to add.
    """
    from cli.operator import hub_configuration
    from cli.vault_login import Mounts, open_vault

    session = Session()
    vault = open_vault(session.environ, session.home, Mounts(kv=kv_mount))
    try:
        sys.stdout.write(hub_configuration(vault, resolver_dir))
    finally:
        vault.close()
