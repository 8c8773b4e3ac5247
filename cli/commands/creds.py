"""`edgefarm creds`: short-lived NATS credentials for a person, signed through their own Vault login."""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.commands.options import NetworkArgument, PolicyOption, TransitMountOption
from cli.session import CONTEXT_SETTINGS, Session, examples, with_session
from edgefarm import names
from edgefarm.errors import InvalidCredential, KubernetesRefused
from edgefarm.units import parse_duration
from reconciler.ports import NETWORK

_SHORTEST: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(hours=24)
_STDOUT: Final = "-"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        context_settings=CONTEXT_SETTINGS,
        epilog=examples(
            "edgefarm creds plant --policy viewer -n shop",
            "edgefarm creds plant --policy viewer -n shop --ttl 8h --out viewer.creds",
            "nats --creds viewer.creds --server tls://nats.example:4222 subscribe 'sensor.>'",
        ),
    )(creds)


def _lifetime(text: str) -> timedelta:
    try:
        lifetime = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not _SHORTEST <= lifetime <= _LONGEST:
        raise typer.BadParameter(
            f"{text} is not between 1m and 24h: credentials of people are short-lived; get new ones when they expire"
        )
    return lifetime


def _account_key(text: str) -> str:
    from edgefarm.nats import nkeys

    try:
        prefix, _ = nkeys.decode_public(text)
    except InvalidCredential:
        prefix = None
    if prefix is not nkeys.Prefix.ACCOUNT:
        raise typer.BadParameter(
            f"{text!r} is no account's public key: write the one of the Network's status.account, "
            "which begins with A and has 56 characters"
        )
    return text


@with_session
def creds(
    session: Session,
    network: NetworkArgument,
    policy: PolicyOption,
    ttl: Annotated[
        timedelta,
        typer.Option("--ttl", metavar="DURATION", parser=_lifetime, help="How long they are valid, 1m to 24h."),
    ] = "1h",  # type: ignore[assignment] # defaults are parsed, too
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write them. Default: NETWORK.NAMESPACE.POLICY.creds; -: stdout."
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account",
            metavar="KEY",
            parser=_account_key,
            help="The network's account. Default: asked of the cluster.",
        ),
    ] = None,
    transit_mount: TransitMountOption = names.DEFAULT_TRANSIT_MOUNT,
) -> None:
    """Get short-lived NATS credentials for yourself.

    They have the rights of a Policy, and are signed through your own Vault login. That is found as `vault` and `bao`
    find it: VAULT_ADDR, VAULT_TOKEN or ~/.vault-token, VAULT_CACERT, VAULT_NAMESPACE (or BAO_...). `edgefarm vault
    policy` prints the rights that it needs. The file is readable by you alone.
    """
    from cli.credentials import Order, issue, write_private
    from cli.vault_login import Mounts, open_vault

    user = session.environ.get("USER") or session.environ.get("LOGNAME") or "unknown"
    order = Order(network, session.namespace, policy, f"edgefarm-creds.{user}", ttl)
    _ = order.key  # names that cannot be are refused before anybody is asked
    vault = open_vault(session.environ, session.home, Mounts(transit=transit_mount))
    try:
        issued = issue(
            vault,
            order,
            account or _account(session, network),
            now=datetime.now(UTC),
            identifier=secrets.token_hex(16),
        )
    finally:
        vault.close()
    if out == _STDOUT:
        sys.stdout.write(issued.text)
        return
    path = Path(out or f"{network}.{order.namespace}.{policy}.creds")
    write_private(path, issued.text)
    document = {"file": str(path), "network": network, "namespace": order.namespace, "policy": policy}
    until = issued.document()["expiresAt"]
    session.output.show({**document, **issued.document()}, lambda: [f"{path}: valid until {until}"])


def _account(session: Session, network: str) -> str:
    """The public key of the network's account, as the reconciler found it on the servers."""
    obj = session.kube.get(NETWORK, session.controller_namespace, network)
    if obj is None:
        raise KubernetesRefused(
            f"there is no network {network!r} in namespace {session.controller_namespace!r}: see `edgefarm status`",
            HTTPStatus.NOT_FOUND,
        )
    account = (obj.get("status") or {}).get("account")
    if not account:
        raise KubernetesRefused(
            f"network {network!r} has no account yet: `edgefarm status {network}` says what it waits for",
            HTTPStatus.NOT_FOUND,
        )
    return str(account)
