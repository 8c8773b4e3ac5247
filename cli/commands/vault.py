"""`edgefarm vault`: what is set up in Vault once by an administrator, and the rights that people need there."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import Final

import typer

from cli.commands.options import NetworkArgument, PolicyOption, TransitMountOption
from cli.session import CONTEXT_SETTINGS, Session, examples, with_session
from edgefarm import names

_PRINT_POLICY: Final = "--print-policy"
_BOOTSTRAP_EXAMPLES: Final = """\
Examples:
  edgefarm vault bootstrap --print-policy
  edgefarm vault bootstrap --vault-addr https://vault.example:8200 --kubernetes-host https://10.0.0.1:6443 \\
    --kubernetes-ca ca.crt --nats-config operator.conf
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, context_settings=CONTEXT_SETTINGS, rich_markup_mode=None)
    group.callback(epilog=examples("edgefarm vault bootstrap --print-policy"))(_group)
    passed_on = {"ignore_unknown_options": True, "allow_extra_args": True}
    group.command(
        add_help_option=False,
        context_settings=passed_on,
        short_help="Set up Vault once, with an administrator's token.",
    )(bootstrap)
    group.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples("edgefarm vault policy plant --policy viewer -n shop | vault policy write plant-viewer -"),
    )(policy)
    app.add_typer(group, name="vault")


def _group() -> None:
    """Set up Vault or OpenBao."""


def bootstrap(ctx: typer.Context) -> None:
    """Set up Vault or OpenBao; arguments and behaviour are those of `python -m reconciler bootstrap`."""
    raise typer.Exit(_bootstrap(ctx.args))


@with_session
def policy(
    session: Session,
    network: NetworkArgument,
    policy: PolicyOption,
    transit_mount: TransitMountOption = names.DEFAULT_TRANSIT_MOUNT,
) -> None:
    """Print the Vault policy that `edgefarm creds` needs.

    It is HCL, and allows to read one public key and to sign with that key, which is exactly the right to get
    credentials of that Policy.
    """
    from cli.vault_policies import credentials_policy
    from edgefarm.vault import VaultSettings

    settings = VaultSettings(address="", transit_mount=transit_mount)
    sys.stdout.write(credentials_policy(settings, names.policy_key(network, session.namespace, policy)))


def _bootstrap(arguments: Sequence[str]) -> int:
    from reconciler import bootstrap_command

    if _PRINT_POLICY in arguments:
        _print_policy(arguments)
        return 0
    parser = argparse.ArgumentParser(
        prog="edgefarm vault bootstrap",
        epilog=_BOOTSTRAP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bootstrap_command.add_arguments(parser)
    parser.description = textwrap.fill(parser.description or "", 80)  # the examples keep their lines
    parser.add_argument(
        _PRINT_POLICY, action="store_true", help="only print the Vault policy (HCL) that the token needs for this"
    )
    return bootstrap_command.run(parser.parse_args(arguments), Session().environ)


def _print_policy(arguments: Sequence[str]) -> None:
    """Needs none of what the bootstrap itself requires; only the names of the mounts count."""
    from cli.vault_policies import bootstrap_policy
    from edgefarm.vault import VaultSettings

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--auth-mount", default=names.DEFAULT_AUTH_MOUNT)
    parser.add_argument("--transit-mount", default=names.DEFAULT_TRANSIT_MOUNT)
    parser.add_argument("--kv-mount", default=names.DEFAULT_KV_MOUNT)
    mounts, _ = parser.parse_known_args(arguments)
    settings = VaultSettings(
        address="", auth_mount=mounts.auth_mount, transit_mount=mounts.transit_mount, kv_mount=mounts.kv_mount
    )
    sys.stdout.write(bootstrap_policy(settings))
