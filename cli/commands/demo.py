"""`edgefarm demo`: the demos of localcluster, which is a part of its own and need not be installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.session import CONTEXT_SETTINGS, examples
from edgefarm.errors import SettingsError

#: By name: the module that runs it.
DEMOS: Final = {
    "main": "localcluster.demo",
    "edge": "localcluster.demo.edge",
    "mesh": "localcluster.demo.mesh",
    "helm": "localcluster.demo.helm",
}
#: Packages that come with the extra `localcluster` only; that of the demos themselves is always installed.
_NEEDED: Final = ("helm_python", "jsonpatch", "orjson", "starlette", "uvicorn")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        context_settings=CONTEXT_SETTINGS, epilog=examples("edgefarm demo", "edgefarm demo edge --keep --data-dir run")
    )(demo)


def _known(name: str) -> str:
    if name not in DEMOS:
        raise typer.BadParameter(f"{name!r} is not known: write one of {', '.join(DEMOS)}")
    return name


def demo(
    name: Annotated[
        str,
        typer.Argument(
            metavar=f"[{'|'.join(DEMOS)}]", callback=_known, autocompletion=lambda: list(DEMOS), help="Which demo."
        ),
    ] = "main",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per step instead of text.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="After the steps, keep everything running until Ctrl-C.")
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", metavar="DIR", help="Keep data and logs here. Default: removed.")
    ] = None,
) -> None:
    """Run a demo on this machine and check every step.

    It runs on localcluster, a small Kubernetes made of processes. main: networks, policies, and pods that talk through
    Dapr and NATS. edge: edge nodes, streams, and the loss of an uplink. mesh: an encrypted network of edge hosts and
    the cluster (Linux, root). helm: the chart. Exit status 0: every step held.
    """
    module = DEMOS[name]
    if not all(map(_is_installed, (module, *_NEEDED))):
        raise SettingsError(["the demo needs localcluster: pip install 'edgefarm-network[localcluster]'"])
    arguments = [*(["--json"] if json else []), *(["--keep"] if keep else [])]
    if data_dir is not None:
        arguments += ["--data-dir", str(data_dir)]
    # In this process's place: signals reach the demo itself, which stops what it has started.
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is meant to be there


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in is missing
        return False
