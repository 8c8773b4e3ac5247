"""Every example is accepted by an API server that knows the CRDs, and its labelled pods are injected."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.api.network import Network
from edgefarm.api.policy import Policy
from edgefarm.api.stream import Stream
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.stack import find_program
from tests.examples.manifests import EXAMPLES, FOLDER, objects
from webhook.decide import Inject
from webhook.manifests import outcomes
from webhook.settings import Injection, Vault

CRDS = FOLDER.parent / "charts" / "edgefarm-network"
KINDS = {"Network": Network, "EdgeNetwork": EdgeNetwork, "Policy": Policy, "Stream": Stream}
SETTINGS = Injection(
    image="registry.example/edgefarm/network-sidecar:1",
    vault=Vault("https://vault.example:8200"),
    nats_url="tls://nats.example:4222",
    ca_bundle=None,
)
WITH_PODS = [name for name in EXAMPLES if any("template" in obj.get("spec", {}) for obj in objects(name))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    running = start_api_server(tmp_path_factory.mktemp("kubernetes"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def kubectl(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """kubectl as administrator of a cluster with our CRDs and the controller namespace."""
    home = tmp_path_factory.mktemp("home")

    def run(*arguments: str, stdin: str = "") -> str:
        command = [find_program("kubectl"), f"--kubeconfig={server.kubeconfig}", *arguments]
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for path in sorted(CRDS.rglob("network.edgefarm.io_*.yaml")):
        run("apply", "-f", str(path))
    run("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
    run("create", "namespace", names.CONTROLLER_NAMESPACE)
    return run


@pytest.mark.parametrize("example", EXAMPLES)
def test_kubectl_applies_the_example(example: str, kubectl: Callable[..., str]) -> None:
    found = objects(example)
    manifest = yaml.safe_dump_all(found)
    assert kubectl("apply", "-f", "-", stdin=manifest).count("created") == len(found)
    assert kubectl("apply", "-f", "-", stdin=manifest).count("unchanged") == len(found)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_reconciler_finds_no_mistake_in_the_example(example: str, kubectl: Callable[..., str]) -> None:
    for obj in objects(example):
        if obj["kind"] in KINDS:
            group = obj["apiVersion"].partition("/")[0]
            command = ["create", "--dry-run=server", "-o", "json", "-f", "-"]
            renamed = {**obj, "metadata": {**obj["metadata"], "name": obj["metadata"]["name"] + "-x"}}
            stored = kubectl(*command, "--namespace", names.CONTROLLER_NAMESPACE, stdin=json.dumps(local(renamed)))
            KINDS[obj["kind"]].parse(json.loads(stored))
            assert group == names.GROUP


def local(obj: dict[str, Any]) -> dict[str, Any]:
    """In the controller namespace, whatever namespaces other tests have made."""
    return {**obj, "metadata": {**obj["metadata"], "namespace": names.CONTROLLER_NAMESPACE}}


@pytest.mark.parametrize("example", EXAMPLES)
def test_policies_and_streams_are_in_namespaces_of_their_network(example: str) -> None:
    found = objects(example)
    namespaces = {obj["metadata"]["name"] for obj in found if obj["kind"] == "Namespace"}
    listed = {obj["metadata"]["name"]: obj["spec"]["namespaces"] for obj in found if obj["kind"] == "Network"}
    for obj in found:
        if obj["kind"] in ("Policy", "Stream"):
            here = obj["metadata"]["namespace"]
            networks = [name for name, names_of in listed.items() if here in names_of]
            assert obj["spec"].get("network", networks[0]) in networks
            assert here in namespaces


@pytest.mark.parametrize("example", WITH_PODS)
def test_labelled_pods_are_injected_and_have_a_policy(example: str) -> None:
    found = objects(example)
    accounts = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in found if obj["kind"] == "Policy"}
    workloads = [obj for obj in found if names.LABEL_NETWORK in str(obj) and "template" in str(obj)]
    for outcome in outcomes(workloads, SETTINGS, "default"):
        if f"'{names.LABEL_NETWORK}'" in str(outcome.before):
            assert isinstance(outcome.decision, Inject), outcome.decision
            account = pod_spec(outcome.before)["serviceAccountName"]
            assert (outcome.before["metadata"]["namespace"], account) in accounts


def pod_spec(workload: Any) -> dict[str, Any]:
    spec = workload["spec"]
    spec = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    return dict(spec["template"]["spec"])


def test_the_list_of_examples_is_complete() -> None:
    listed = (FOLDER / "README.md").read_text()
    assert [name for name in EXAMPLES if f"[{name}]({name}" not in listed] == []
