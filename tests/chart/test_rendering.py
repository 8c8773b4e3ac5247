"""What the chart renders: lint, snapshots, Kubernetes' own schemas, Pod Security."""

from __future__ import annotations

import re

import helm_python
import pytest
import yaml

from edgefarm import __version__
from tests.chart import schemas
from tests.chart.rendering import (
    CHART,
    NAMES,
    ROOT,
    SNAPSHOTS,
    kinds,
    objects,
    one,
    parsed,
    pods,
    render,
    snapshot,
    values_of,
)
from tests.webhook.pod_security import violations

PRIVILEGED = {
    "network-agent": {"hostNetwork", "volume abbot-config", "volume abbot-run", "agent runs as root"},
    "network-gateway": {
        "hostNetwork",
        "volume data",
        "abbot is privileged",
        "abbot runs as root",
        "agent runs as root",
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_lint_finds_nothing(name: str) -> None:
    report = helm_python.lint(CHART, values_of(name), strict=True, namespace="network")
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("name", NAMES)
def test_the_rendered_output_is_the_snapshot(name: str) -> None:
    path = SNAPSHOTS / f"{name}.yaml"
    assert path.read_text() == snapshot(name), "read the difference, then: python -m tests.chart.rendering"


def test_there_is_no_snapshot_without_values() -> None:
    assert sorted(path.stem for path in SNAPSHOTS.iterdir()) == list(NAMES)


@pytest.mark.parametrize("version", schemas.VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_object_is_valid(name: str, version: str) -> None:
    assert [problem for obj in objects(values_of(name)) for problem in schemas.problems(obj, version)] == []


def test_an_unknown_member_is_noticed() -> None:
    service = one(objects(), "Service", "network-webhook")
    service["spec"]["port"] = 443
    assert list(schemas.problems(service, schemas.VERSIONS[-1]))


@pytest.mark.parametrize("name", NAMES)
def test_all_pods_are_restricted_but_those_of_the_mesh(name: str) -> None:
    for workload, pod in pods(objects(values_of(name))).items():
        if workload not in PRIVILEGED:
            assert violations(pod) == []
            assert all(item["securityContext"]["readOnlyRootFilesystem"] for item in pod["spec"]["containers"])


def test_pods_of_the_mesh_ask_for_no_more_than_is_documented() -> None:
    templates = pods(objects(values_of("mesh")))
    for workload, documented in PRIVILEGED.items():
        rest = {
            what
            for what in violations(templates[workload])
            # What follows from the rest: who is privileged is all of that, and the kubelet is on the host itself.
            if not re.search("^abbot (may|does)|may be root|probes another host", what)
        }
        assert rest == documented


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_gets_a_token_of_the_api_server_only_for_the_reconciler(name: str) -> None:
    tokens = {
        workload: pod["spec"]["automountServiceAccountToken"]
        for workload, pod in pods(objects(values_of(name))).items()
    }
    assert tokens == {workload: workload == "network-controller" for workload in tokens}


@pytest.mark.parametrize("name", NAMES)
def test_nobody_is_a_cluster_administrator(name: str) -> None:
    for obj in objects(values_of(name)):
        for rule in obj.get("rules") or ():
            assert "*" not in {*rule.get("apiGroups", ()), *rule.get("resources", ()), *rule.get("verbs", ())}
        if obj["kind"].endswith("RoleBinding"):
            assert obj["roleRef"]["name"] in ("network-controller", "system:auth-delegator")


@pytest.mark.parametrize("name", NAMES)
def test_pods_are_selected_by_labels_that_no_upgrade_changes(name: str) -> None:
    for obj in objects(values_of(name)):
        if "template" in obj.get("spec", {}):
            assert set(obj["spec"]["selector"]["matchLabels"]) == {
                "app.kubernetes.io/name",
                "app.kubernetes.io/component",
            }


def test_the_definitions_are_rendered_as_they_are_and_kept() -> None:
    rendered = {obj["metadata"]["name"]: obj for obj in parsed("crds.yaml", render()["templates/crds.yaml"])}
    paths = (CHART / "files" / "crds").glob("*.yaml")
    files = [obj for path in paths for obj in parsed(path.name, path.read_text())]
    assert rendered == {obj["metadata"]["name"]: obj for obj in files}
    assert len(files) == 5
    assert all(obj["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for obj in files)
    assert render({"crds": {"install": False}})["templates/crds.yaml"].strip() == ""


def test_without_values_everything_is_run_in_the_cluster() -> None:
    assert kinds(objects()) == kinds(objects(values_of("in-cluster")))


def test_the_chart_has_the_version_of_the_programs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert chart["annotations"]["artifacthub.io/license"] == "Apache-2.0"


def test_another_release_namespace_is_said_everywhere() -> None:
    found = objects(values_of("everything"), namespace="elsewhere")
    assert {obj["metadata"].get("namespace", "elsewhere") for obj in found} == {"elsewhere"}
    text = "\n".join(text for path, text in render(values_of("in-cluster"), "elsewhere").items() if "crds" not in path)
    assert "network-vault.elsewhere.svc:8200" in text
    assert ".network.svc" not in text
    assert '["kube-system","elsewhere"]' in text


@pytest.mark.parametrize("name", NAMES)
def test_the_notes_name_what_was_chosen(name: str) -> None:
    notes, values = render(values_of(name))["templates/NOTES.txt"], values_of(name)
    own = values.get("vault", {}).get("deploy", True)
    assert ("OpenBao, run by the reconciler" in notes) == own
    assert ("edgefarm vault bootstrap" in notes) != own
    assert ("network-vault-unseal" in notes) == own
    assert ("privileged" in notes) == bool(values.get("agent"))
    assert "edgefarm doctor" in notes
