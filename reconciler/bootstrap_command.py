"""The command `bootstrap`: reads arguments and files, runs the bootstrap, prints the NATS configuration."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.errors import EdgefarmError, SettingsError
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings
from reconciler.bootstrap import BootstrapSettings, bootstrap

#: Where the administrator's token is looked for. Never an argument: every user of a machine can read those.
_TOKEN_VARIABLES: Final = ("VAULT_TOKEN", "BAO_TOKEN")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = (
        "Set up Vault or OpenBao for edgefarm-network and print the configuration for the main NATS servers. "
        "May be repeated. The administrator's token is read from VAULT_TOKEN or BAO_TOKEN."
    )
    vault = parser.add_argument_group("Vault")
    vault.add_argument("--vault-addr", required=True, metavar="URL")
    vault.add_argument("--vault-ca", type=Path, metavar="FILE", help="PEM authority (default: the system's)")
    vault.add_argument("--vault-namespace", default="", metavar="NAME")
    vault.add_argument("--auth-mount", default=names.DEFAULT_AUTH_MOUNT, metavar="NAME")
    vault.add_argument("--transit-mount", default=names.DEFAULT_TRANSIT_MOUNT, metavar="NAME")
    vault.add_argument("--kv-mount", default=names.DEFAULT_KV_MOUNT, metavar="NAME")
    kubernetes = parser.add_argument_group("Kubernetes, as Vault sees it")
    kubernetes.add_argument("--kubernetes-host", required=True, metavar="URL")
    kubernetes.add_argument("--kubernetes-ca", required=True, type=Path, metavar="FILE")
    kubernetes.add_argument(
        "--reviewer-token-file",
        type=Path,
        metavar="FILE",
        help="token of a service account with system:auth-delegator (default: each login reviews itself)",
    )
    kubernetes.add_argument(
        "--service-account",
        default=f"{names.CONTROLLER_NAMESPACE}/network-controller",
        metavar="NAMESPACE/NAME",
        help="the reconciler's own (default: %(default)s)",
    )
    kubernetes.add_argument("--audience", default=names.DEFAULT_AUDIENCE, help="of its token (default: %(default)s)")
    nats = parser.add_argument_group("NATS")
    nats.add_argument("--nats-resolver-dir", default="/data/resolver", metavar="DIR", help="default: %(default)s")
    nats.add_argument("--nats-config", type=Path, metavar="FILE", help="write the configuration here, not to stdout")


def run(args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Run the command; the exit status. Progress goes to stderr, the NATS configuration to stdout or a file."""
    try:
        token = next((environ[name] for name in _TOKEN_VARIABLES if environ.get(name)), None)
        if token is None:
            raise SettingsError([f"{' or '.join(_TOKEN_VARIABLES)} is not set: export an administrator's token"])
        settings = _bootstrap_settings(args)
        vault = Vault(_vault_settings(args), token=token)
        result = bootstrap(
            vault,
            settings,
            now=datetime.now(UTC),
            random=lambda: secrets.token_hex(16),
            progress=_say,
        )
        text = result.nats_config(args.nats_resolver_dir)
        if args.nats_config is None:
            sys.stdout.write(text)
        else:
            args.nats_config.write_text(text)
    except (EdgefarmError, OSError, UnicodeDecodeError) as error:
        _say(str(error))
        return 1
    _say(f"done, {vault.writes} changes; the system account is {result.system_account}")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"bootstrap: {line}\n")


def _vault_settings(args: argparse.Namespace) -> VaultSettings:
    return VaultSettings(
        address=args.vault_addr,
        ca_pem=None if args.vault_ca is None else args.vault_ca.read_text(),
        namespace=args.vault_namespace,
        auth_mount=args.auth_mount,
        transit_mount=args.transit_mount,
        kv_mount=args.kv_mount,
    )


def _bootstrap_settings(args: argparse.Namespace) -> BootstrapSettings:
    namespace, slash, service_account = args.service_account.partition("/")
    if not (namespace and slash and service_account):
        raise SettingsError([f"--service-account is {args.service_account!r}: write NAMESPACE/NAME"])
    reviewer = args.reviewer_token_file
    return BootstrapSettings(
        kubernetes=KubernetesAuth(
            host=args.kubernetes_host,
            ca_pem=args.kubernetes_ca.read_text(),
            reviewer_token=None if reviewer is None else reviewer.read_text().strip(),
        ),
        controller_namespace=namespace,
        controller_service_account=service_account,
        audience=args.audience,
    )
