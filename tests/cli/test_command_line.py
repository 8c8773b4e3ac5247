"""The command line as a whole: help with examples, versions, usage errors, the commands that pass arguments on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer
import typer.main

from edgefarm import __version__
from localcluster.kubernetes import KUBECONFIG_VARIABLE
from tests.cli.conftest import Ended

Run = Callable[..., Ended]
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: sensor, namespace: shop, labels: {network.edgefarm.io: plant}}
spec: {containers: [{name: app, image: app}]}
"""


def _commands(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


def test_help_of_every_command_has_an_example_and_fits(app: typer.Typer, edgefarm: Run) -> None:
    found = list(_commands(typer.main.get_command(app)))
    assert {("status",), ("trace",), ("creds",), ("vault", "policy"), ("webhook", "inject"), ("demo",)} <= set(found)
    for path in found:
        ended = edgefarm(*path, "--help")
        assert ended.status == 0, path
        assert "Example" in ended.out, path
        assert f"edgefarm {' '.join(path)}".strip() in ended.out.split("Example", 1)[1], path
        assert max(map(len, ended.out.split("Example", 1)[0].splitlines())) <= 100, path


def test_without_a_command_help_is_shown(edgefarm: Run) -> None:
    assert "Commands:" in edgefarm().out + edgefarm().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["statuss"], "No such command 'statuss'"),
        (["status", "-o", "xml"], "'xml' is not known: write table, json or yaml"),
        (["demo", "edgy"], "'edgy' is not known: write one of main, edge, mesh, helm"),
        (["creds", "plant"], "Missing option '--policy'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_to_write(edgefarm: Run, arguments: list[str], problem: str) -> None:
    ended = edgefarm(*arguments)
    assert ended.status == 2
    assert problem in ended.err


def test_options_of_the_session_may_stand_before_the_command(edgefarm: Run) -> None:
    before = edgefarm("-n", "shop", "vault", "policy", "plant", "--policy", "viewer")
    after = edgefarm("vault", "policy", "plant", "--policy", "viewer", "--namespace", "shop")
    assert before.out == after.out
    assert "policy.plant.shop.viewer" in after.out


def test_a_pod_is_injected_offline(edgefarm: Run, tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_text(_POD)
    ended = edgefarm("webhook", "inject", "--diff", str(tmp_path / "pod.yaml"))
    assert ended.status == 0
    assert "+  - name: network-sidecar" in ended.out
    assert "injected (network plant" in ended.err
    assert edgefarm("webhook", "inject", str(tmp_path / "nothing.yaml")).status == 2


def test_a_demo_runs_in_the_place_of_the_command() -> None:
    # It refuses to run on a cluster that is given, which is the quickest thing that it can do.
    environ = {**os.environ, KUBECONFIG_VARIABLE: "given"}
    command = [_BIN / "edgefarm", "demo", "edge", "--json"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"The demo makes a cluster of its own: unset {KUBECONFIG_VARIABLE}" in ended.stderr


@pytest.mark.parametrize(
    ("missing", "demo"),
    [("localcluster", "main"), ("starlette", "edge"), ("helm_python", "main")],
)
def test_a_demo_whose_packages_are_missing_says_how_to_get_them(missing: str, demo: str) -> None:
    problem = "the demo needs localcluster: pip install 'edgefarm-network[localcluster]'"
    program = f"import sys; sys.modules[{missing!r}] = None; from cli.__main__ import main; main()"
    command = [sys.executable, "-c", program, "demo", demo]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (2, f"edgefarm: {problem}\n")


_BIN = Path(sys.executable).parent
_PROGRAMS = {
    "edgefarm": ["cli"],
    "webhook": ["webhook"],
    "sidecar": ["sidecar"],
    "reconciler": ["reconciler"],
    "agent": ["agent"],
    "abbot": ["abbot"],
    "webhook inject": ["webhook", "inject"],
    "sidecar once": ["sidecar", "once"],
    "sidecar probe": ["sidecar", "probe"],
    "sidecar wait": ["sidecar", "wait"],
    "sidecar leaf": ["sidecar", "leaf"],
    "sidecar leaf prepare": ["sidecar", "leaf", "prepare"],
    "reconciler run": ["reconciler", "run"],
    "reconciler bootstrap": ["reconciler", "bootstrap"],
    "abbot daemon": ["abbot", "daemon"],
    "abbot process": ["abbot", "process"],
    "abbot cni": ["abbot", "cni"],
}


@pytest.mark.parametrize("program", _PROGRAMS)
def test_every_program_and_command_has_help(program: str) -> None:
    ended = _python(*_PROGRAMS[program], "--help")
    assert ended.returncode == 0, ended
    assert "usage" in ended.stdout.lower()


@pytest.mark.parametrize("program", [name for name, words in _PROGRAMS.items() if len(words) == 1])
def test_every_program_tells_its_version(program: str) -> None:
    ended = _python(*_PROGRAMS[program], "--version")
    assert ended.returncode == 0
    assert ended.stdout.split()[-1] == __version__


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_cni_plugin_answers_people_too(option: str) -> None:
    ended = subprocess.run([_BIN / "abbot-cni", option], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert ended.stdout.startswith("usage: abbot-cni" if option == "--help" else __version__)


def _python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, check=False)
