"""`python -m webhook inject`: manifests in, what the webhook would make of them out."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

from edgefarm import names
from tests.webhook.conftest import SETTINGS, operations_for
from tests.webhook.shapes import ONLY_NATS, SHAPES
from webhook import patch
from webhook.inject_command import main

Json = dict[str, Any]
_EXAMPLES = Path(__file__).parents[2] / "examples" / "quickstart"
_TEMPLATE = """\
metadata:
  labels: {app: x, network.edgefarm.io: foo}
spec:
  serviceAccountName: sensor
  containers:
  - name: app
    image: app:1
"""


def indented(text: str, by: int) -> str:
    return "".join(" " * by + line for line in text.splitlines(keepends=True))


POD = "apiVersion: v1\nkind: Pod\n" + _TEMPLATE.replace("metadata:\n", "metadata:\n  name: bare\n")
DEPLOYMENT = (
    f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: pump, namespace: plant}}\n"
    f"spec:\n  template:\n{indented(_TEMPLATE, 4)}"
)
CRON_JOB = (
    f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: nightly}}\n"
    f"spec:\n  jobTemplate:\n    spec:\n      template:\n{indented(_TEMPLATE, 8)}        restartPolicy: Never\n"
)


@pytest.fixture
def run(work: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command on a text: exit status, documents, and what it says about them."""

    def inject(text: str | bytes, *options: str) -> tuple[int, str, str]:
        file = work / "manifest.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        status = main([*options, str(file)])
        out, err = capsys.readouterr()
        return status, out, err

    return inject


def env_of(container: Json) -> Json:
    return {item["name"]: item.get("value") for item in container["env"]}


@pytest.mark.parametrize("title", [title for title in SHAPES if title not in ONLY_NATS])
def test_our_patches_are_applied_as_a_json_patch_library_applies_them(title: str) -> None:
    pod = copy.deepcopy(SHAPES[title])
    for _ in range(2):
        operations = json.loads(json.dumps(operations_for(pod)))
        expected = jsonpatch.apply_patch(pod, operations)
        patch.apply(pod, operations)
        assert pod == expected
        pod["spec"].get("initContainers", []).append({"name": "istio-proxy", "restartPolicy": "Always"})


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/spec"},
        {"op": "add", "path": "/no/member", "value": 1},
        {"op": "add", "path": "/list/3", "value": 1},
        {"op": "move", "from": "/list/2", "path": "/list/0"},
    ],
)
def test_an_operation_that_does_not_fit_is_an_error(operation: Json) -> None:
    with pytest.raises(LookupError):
        patch.apply({"spec": {}, "list": [1]}, [operation])


def test_a_pod_is_shown_injected(run: Any) -> None:
    status, out, err = run(POD)
    assert status == 0
    assert yaml.safe_load(out)["spec"]["initContainers"][0]["name"] == names.SIDECAR_CONTAINER
    assert err == "Pod/bare: injected (network foo, mode dapr, service account sensor in namespace default)\n"


@pytest.mark.parametrize(
    ("text", "path", "app_id"),
    [(DEPLOYMENT, ["spec"], "pump"), (CRON_JOB, ["spec", "jobTemplate", "spec"], "nightly")],
)
def test_the_template_of_a_workload_is_shown_as_its_pods_would_become(
    run: Any, text: str, path: list[str], app_id: str
) -> None:
    status, out, _ = run(text)
    assert status == 0
    template = yaml.safe_load(out)
    for part in [*path, "template"]:
        template = template[part]
    assert env_of(template["spec"]["initContainers"][0])["EDGEFARM_DAPR_APP_ID"] == app_id
    assert template["metadata"]["labels"] == {"app": "x", "network.edgefarm.io": "foo"}
    assert "ownerReferences" not in template["metadata"]


def test_what_comes_out_can_go_in_again_and_does_not_change(run: Any) -> None:
    _, once, _ = run(DEPLOYMENT)
    status, twice, err = run(once)
    assert (status, twice) == (0, once)
    assert "unchanged, it has the sidecar already" in err


def test_several_documents_and_lists_are_taken_and_other_objects_pass(run: Any) -> None:
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n"
    items = json.dumps([yaml.safe_load(POD), yaml.safe_load(DEPLOYMENT)])
    listed = f'{{"apiVersion": "v1", "kind": "List", "items": {items}}}\n'
    status, out, err = run(f"---\n{service}---\n---\n{listed}---\n{CRON_JOB}")
    assert status == 0
    documents = list(yaml.safe_load_all(out))
    assert [document["kind"] for document in documents] == ["Service", "Pod", "Deployment", "CronJob"]
    assert documents[0] == yaml.safe_load(service)
    assert "Service/s: unchanged, there is no pod in it" in err


def test_kinds_of_others_that_are_named_like_a_workload_pass(run: Any) -> None:
    job = "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {name: j}\nspec: {tasks: []}\n"
    status, out, err = run(job)
    assert (status, yaml.safe_load(out)) == (0, yaml.safe_load(job))
    assert "Job/j: unchanged, there is no pod in it" in err


def test_the_diff_shows_additions_only(run: Any) -> None:
    status, out, _ = run(DEPLOYMENT, "--diff")
    assert status == 0
    assert out.startswith("--- Deployment/pump\n+++ Deployment/pump (injected)\n")
    lines = out.splitlines()[2:]
    assert [line for line in lines if line.startswith("-")] == []
    assert any(line.startswith("+") and names.SIDECAR_CONTAINER in line for line in lines)


def test_a_denied_pod_is_not_shown_and_the_reason_is(run: Any) -> None:
    status, out, err = run(f"{DEPLOYMENT.replace('serviceAccountName: sensor', 'hostNetwork: true')}---\n{POD}")
    assert status == 1
    assert yaml.safe_load(out)["kind"] == "Pod"
    assert "Deployment/pump: denied (HostNetwork): a pod with hostNetwork" in err


def test_a_label_on_the_workload_alone_is_explained(run: Any) -> None:
    text = DEPLOYMENT.replace(", network.edgefarm.io: foo", "").replace(
        "{name: pump,", "{name: pump, labels: {network.edgefarm.io: foo},"
    )
    status, out, err = run(text)
    assert (status, yaml.safe_load(out)) == (0, yaml.safe_load(text))
    assert "put it under spec.template.metadata.labels" in err


def test_settings_come_from_options(run: Any, work: Path) -> None:
    ca = work / "ca.crt"
    ca.write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    options = ["--image", "mine:2", "--vault-addr", "https://v:1", "--ca-file", str(ca), "--classic", "-n", "plant"]
    _, out, err = run(POD, *options)
    spec = yaml.safe_load(out)["spec"]
    assert [item["name"] for item in spec["initContainers"]] == [names.INIT_CONTAINER]
    sidecar = spec["containers"][0]
    assert sidecar["image"] == "mine:2"
    assert env_of(sidecar)["EDGEFARM_VAULT_ADDR"] == "https://v:1"
    assert env_of(sidecar)["EDGEFARM_CA_BUNDLE"] == ca.read_text()
    assert "in namespace plant" in err


def test_shared_yaml_anchors_and_times_stay_what_they_are(run: Any) -> None:
    text = POD.replace("image: app:1", "image: app:1\n    env: &env [{name: T, value: 2024-01-01}]") + (
        "  - {name: second, image: b, env: *env}\n"
    )
    status, out, _ = run(text)
    assert status == 0
    for container in yaml.safe_load(out)["spec"]["containers"]:
        listed = [item["name"] for item in container["env"]]
        assert len(set(listed)) == len(listed)
        assert container["env"][0]["value"] == "2024-01-01"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "there is no object in the input"),
        (b"---\n---\n", "there is no object in the input"),
        (b"hello", "document 1: is no Kubernetes object: it has no kind"),
        (b"[1, 2]", "document 1: is no Kubernetes object"),
        (b"kind: {", "is no YAML"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"a: \x00", "is no YAML"),
        (b"[" * 5000, "is no YAML"),
        (b"kind: Pod\nspec: !!python/object:os.system {}", "is no YAML"),
        (b"kind: Pod\nspec: &a {containers: [*a]}", "Pod/(no name): is nothing that JSON can hold"),
        (b"kind: Pod\nmetadata: {name: p}", "Pod/p: has no pod in it: write spec.containers"),
        (b"kind: Pod\nspec: {volumes: []}", "Pod/(no name): has no pod in it: write spec.containers"),
        (b"apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}", "has no pod in it: write spec.containers"),
        (b"kind: Pod\nspec: {containers: 5}", "spec.containers: Expected `array`, got `int`"),
        (
            b"kind: Pod\nmetadata: {labels: {a: true}}\nspec: {containers: [{name: a}]}",
            "metadata.labels['a']: Expected `str`, got `bool`",
        ),
        (
            b"kind: Pod\nmetadata: {name: p, labels: {network.edgefarm.io: a}}\n"
            b"spec: {containers: [{name: a, env: [5]}]}",
            "Pod/p: spec.containers[0].env[0]: Expected `object`, got `int`",
        ),
        (b"kind: Pod\nmetadata: []\nspec: {containers: [{name: a}]}", "metadata: Expected `object`, got `array`"),
        (b"kind: List\nitems: [1]", "has an item that is no object"),
        (b"kind: !!set {a}", "document 1: is no Kubernetes object"),
    ],
)
def test_garbage_is_refused_in_one_line(run: Any, text: bytes, says: str) -> None:
    status, out, err = run(text)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["/no/such/file.yaml"]) == 2
    assert "/no/such/file.yaml cannot be read" in capsys.readouterr().err
    assert main(["--ca-file", "/no/such/ca.crt", "/no/such/file.yaml"]) == 2
    assert "--ca-file cannot be read" in capsys.readouterr().err


def test_the_program_reads_the_standard_input_and_needs_no_environment() -> None:
    text = "---\n".join(path.read_text() for path in sorted(_EXAMPLES.glob("*.yaml")))
    done = subprocess.run(
        [sys.executable, "-m", "webhook", "inject"],
        input=text.encode(),
        capture_output=True,
        env={"PATH": os.environ["PATH"]},
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SETTINGS.image not in done.stdout.decode()
    assert len(list(yaml.safe_load_all(done.stdout))) == len([doc for doc in yaml.safe_load_all(text) if doc])
