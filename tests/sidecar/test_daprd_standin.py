"""The stand-in refuses what daprd refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from localcluster.daprd import write_launcher
from localcluster.process import free_port

_NEEDED = ["--app-id=a", "--dapr-listen-addresses=127.0.0.1"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no-such-flag=1"], "unrecognized arguments: --no-such-flag=1"),
        (["--dapr-http-port=http"], "invalid int value"),
        (["--enable-metrics=maybe"], "invalid boolean"),
        (["--mode=kubernetes"], "only standalone"),
        (["--app-protocol=grpc"], "only http"),
        (["--app-id="], "app-id parameter cannot be empty"),
    ],
)
def test_a_wrong_command_line_is_refused(work: Path, arguments: list[str], says: str) -> None:
    done = _run(work, *_NEEDED, *arguments)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("[]", "missing nats URL"),
        ("[{name: natsURL, value: 'nats://127.0.0.1:1'}, {name: jwt, value: x}]", "missing seed key"),
        ("[{name: natsURL, value: 'nats://127.0.0.1:1'}, {name: seedKey, value: x}]", "missing jwt"),
        ("[{name: natsURL, value: 'nats://127.0.0.1:1'}, {name: deliverPolicy, value: x}]", "deliver policy x"),
        ("[{name: natsURL, value: 'nats://127.0.0.1:1'}]", "nats: "),
        ("[{name: natsURL, value: 'nats://127.0.0.1:1'}, {name: heartbeat, value: 1s}]", "not part of the stand-in"),
    ],
)
def test_a_component_that_cannot_be_initialised_ends_it(work: Path, metadata: str, says: str) -> None:
    done = _run(work, *_NEEDED, resources=_component("pubsub.jetstream", metadata))
    assert (done.returncode, says in done.stdout) == (1, True), done.stdout


@pytest.mark.parametrize("text", ["kind: [", "kind: Component\nmetadata: {name: x}\n"])
def test_a_file_that_is_no_component_ends_it(work: Path, text: str) -> None:
    assert _run(work, *_NEEDED, resources=text).returncode == 1


def test_an_unknown_type_ends_it(work: Path) -> None:
    done = _run(work, *_NEEDED, resources=_component("pubsub.magic", "[]"))
    assert (done.returncode, "pubsub.magic/v1" in done.stdout) == (1, True)


def _component(kind: str, metadata: str) -> str:
    spec = f"{{type: {kind}, version: v1, metadata: {metadata}}}"
    return f"apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: network}}\nspec: {spec}\n"


def _run(work: Path, *arguments: str, resources: str = "") -> subprocess.CompletedProcess[str]:
    folder = work / "resources"
    folder.mkdir()
    (folder / "component.yaml").write_text(resources)
    command = [
        str(write_launcher(work)),
        f"--dapr-http-port={free_port()}",
        f"--resources-path={folder}",
        "--log-as-json",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
