"""kubectl, as users run it: nothing switched off."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from localcluster.kubernetes import ApiServer
from localcluster.stack import find_program
from tests.apiserver.rest import Rest
from tests.apiserver.test_definitions import definition

PROJECT = Path(__file__).parents[2]
MANIFEST = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: green}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: main, image: "example/app:1", env: [{name: A, value: "1"}]}
        - {name: side, image: "example/side:1"}
"""
JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: "example/app:1"}]}
"""


class Kubectl(Protocol):
    """Runs kubectl with these arguments; asserts that it succeeds unless told otherwise."""

    def __call__(self, *arguments: str, stdin: str = "", fails: bool = False) -> str: ...


@pytest.fixture
def kubectl(server: ApiServer, namespace: str, work: Path) -> Kubectl:
    """kubectl as administrator, in the test's namespace."""
    command = [find_program("kubectl"), f"--kubeconfig={server.kubeconfig}", f"--cache-dir={work / 'cache'}"]
    command += [f"--namespace={namespace}"]

    def run(*arguments: str, stdin: str = "", fails: bool = False) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(work)}
        done = subprocess.run(
            [*command, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode != 0) is fails, output
        return output

    return run


def test_apply_creates_configures_and_leaves_alone(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=MANIFEST).splitlines() == [
        "configmap/settings created",
        "deployment.apps/web created",
    ]
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=MANIFEST)
    changed = MANIFEST.replace("green", "blue").replace('        - {name: side, image: "example/side:1"}\n', "")
    assert "deployment.apps/web configured" in kubectl("apply", "-f", "-", stdin=changed)
    names = kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[*].name}")
    assert names == "main"
    assert kubectl("get", "cm", "settings", "-o", "jsonpath={.data.colour}") == "blue"


def test_server_side_apply_and_diff(kubectl: Kubectl) -> None:
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    assert "serverside-applied" in kubectl("apply", "--server-side", "-f", "-", stdin=MANIFEST)
    assert kubectl("diff", "--server-side", "-f", "-", stdin=MANIFEST) == ""


def test_a_typing_error_in_a_manifest_is_refused(kubectl: Kubectl) -> None:
    wrong = MANIFEST.replace("image:", "imagee:", 1)
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in kubectl(
        "apply", "-f", "-", stdin=wrong, fails=True
    )


def test_imperative_commands(kubectl: Kubectl, namespace: str) -> None:
    assert "configmap/a created" in kubectl("create", "configmap", "a", "--from-literal=x=y")
    assert "secret/b created" in kubectl("create", "secret", "generic", "b", "--from-literal=x=y")
    assert kubectl("get", "secret", "b", "-o", "jsonpath={.data.x}") == "eQ=="
    assert "serviceaccount/c created" in kubectl("create", "serviceaccount", "c")
    assert kubectl("create", "token", "c").count(".") == 2
    assert "role.rbac.authorization.k8s.io/d created" in kubectl("create", "role", "d", "--verb=get", "--resource=pods")
    binding = ["--role=d", f"--serviceaccount={namespace}:c"]
    assert "created" in kubectl("create", "rolebinding", "e", *binding)
    assert "deployment.apps/f created" in kubectl("create", "deployment", "f", "--image=example/app:1", "--port=80")
    assert "pod/g created" in kubectl("run", "g", "--image=example/app:1")
    assert "yes" in kubectl("auth", "can-i", "get", "pods")
    assert "admin" in kubectl("auth", "whoami")


def test_get_describe_label_annotate_patch_delete(kubectl: Kubectl) -> None:
    kubectl("run", "p", "--image=example/app:1")
    assert kubectl("get", "pods").splitlines()[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert "0/1" in kubectl("get", "pod", "p", "-o", "wide")
    assert "kube-api-access-" in kubectl("describe", "pod", "p")
    kubectl("label", "pod", "p", "x=y")
    kubectl("annotate", "pod", "p", "some/note=text")
    assert "x=y" in kubectl("get", "pods", "-l", "x=y", "--show-labels")
    kubectl("patch", "pod", "p", "-p", '{"metadata":{"labels":{"x":"z"}}}')
    assert kubectl("get", "pod", "p", "-o", "jsonpath={.metadata.labels.x}") == "z"
    kubectl("delete", "pod", "p")
    assert "NotFound" in kubectl("get", "pod", "p", fails=True)


def test_jobs_show_how_far_they_are(kubectl: Kubectl, rest: Rest, namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=JOB)
    header, row = (line.split() for line in kubectl("get", "jobs").splitlines())
    assert header == ["NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"]
    assert row[:3] == ["j", "Running", "0/1"]
    times = {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:03:20Z"}
    conditions = [{"type": kind, "status": "True"} for kind in ("SuccessCriteriaMet", "Complete")]
    status = {"status": {**times, "succeeded": 1, "conditions": conditions}}
    assert rest.patch(f"/apis/batch/v1/namespaces/{namespace}/jobs/j/status", status).status == 200
    _, row = (line.split() for line in kubectl("get", "jobs").splitlines())
    assert row[:4] == ["j", "Complete", "1/1", "3m20s"]


def test_wait_sees_conditions_and_deletions(kubectl: Kubectl, rest: Rest, namespace: str) -> None:
    kubectl("run", "p", "--image=example/app:1")
    status = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    path = f"/api/v1/namespaces/{namespace}/pods/p"
    assert rest.patch(f"{path}/status", status, "strategic-merge-patch+json").status == 200
    assert "condition met" in kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=10s")
    rest.delete(path)
    kubectl("wait", "--for=delete", "pod/p", "--timeout=10s")


def test_scale_and_rollout(kubectl: Kubectl, rest: Rest, namespace: str) -> None:
    kubectl("apply", "-f", "-", stdin=MANIFEST)
    assert "scaled" in kubectl("scale", "deployment/web", "--replicas=2")
    assert "restarted" in kubectl("rollout", "restart", "deployment/web")
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"
    generation = rest.read(path)["metadata"]["generation"]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
    rest.patch(f"{path}/status", {"status": {"observedGeneration": generation, **counts}})
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/web", "--timeout=10s")


def test_custom_resources(kubectl: Kubectl, rest: Rest) -> None:
    group = "kubectl.example.org"
    rest.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(group))
    kubectl("wait", "--for=condition=Established", f"crd/things.{group}", "--timeout=10s")
    manifest = f"apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: t}}\nspec: {{size: 3}}\n"
    assert "created" in kubectl("apply", "-f", "-", stdin=manifest)
    assert "configured" in kubectl("apply", "-f", "-", stdin=manifest.replace("3", "4"))
    assert kubectl("get", f"things.{group}", "t", "-o", "jsonpath={.spec.size}") == "4"
    assert "<integer>" in kubectl("explain", "thing.spec.size", f"--api-version={group}/v1")
    wrong = manifest.replace("size: 3", "size: 3, sise: 4")
    assert 'unknown field "spec.sise"' in kubectl("apply", "-f", "-", stdin=wrong, fails=True)


def test_the_projects_own_definitions_are_accepted(kubectl: Kubectl) -> None:
    folder = PROJECT / "charts" / "edgefarm-network" / "files" / "crds"
    assert "customresourcedefinition" in kubectl("apply", "--server-side", "--force-conflicts", "-f", str(folder))


def test_a_namespace_can_be_deleted(kubectl: Kubectl, namespace: str, local_only: None) -> None:
    kubectl("run", "p", "--image=example/app:1")
    assert "deleted" in kubectl("delete", "namespace", namespace, "--timeout=10s")


def test_rights_can_be_asked_for(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods,deployments.apps/scale")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:default")
    account = f"--as=system:serviceaccount:{namespace}:default"
    assert "yes" in kubectl("auth", "can-i", "list", "pods", account)
    assert "yes" in kubectl("auth", "can-i", "get", "deployments.apps", "--subresource=scale", account)
    assert "no" in kubectl("auth", "can-i", "delete", "pods", account, fails=True)
    listed = [line.split() for line in kubectl("auth", "can-i", "--list", account).splitlines()]
    assert ["pods", "[]", "[]", "[get", "list]"] in listed
    assert namespace in kubectl("auth", "whoami", account, "-o", "jsonpath={.status.userInfo.groups}")
    refused = kubectl("get", "secrets", account, fails=True)
    assert f'User "system:serviceaccount:{namespace}:default" cannot list resource "secrets"' in refused
