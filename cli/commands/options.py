"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

NetworkArgument = Annotated[str, typer.Argument(metavar="NETWORK", help="Name of the network.")]
PolicyOption = Annotated[str, typer.Option("--policy", metavar="POLICY", help="Name of the Policy in the namespace.")]
TransitMountOption = Annotated[str, typer.Option("--transit-mount", metavar="NAME", help="Vault's mount of our keys.")]
KvMountOption = Annotated[str, typer.Option("--kv-mount", metavar="NAME", help="Vault's mount of our documents.")]
