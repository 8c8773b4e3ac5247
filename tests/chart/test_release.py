"""A release in an API server: install, upgrade, rollback, uninstall, and what each of them leaves alone."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import helm_python
import pytest
import yaml

from edgefarm import names
from localcluster.kubernetes import ApiServer
from reconciler.controllers.webhook_certificate import ca_bundle_patch
from tests.apiserver.rest import Json, Rest
from tests.chart.rendering import NAMESPACE, kinds, objects, values_of

WEBHOOK = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{names.WEBHOOK_CONFIGURATION}"
STREAMS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/streams.network.edgefarm.io"
NETWORKS = f"/apis/network.edgefarm.io/v1alpha1/namespaces/{NAMESPACE}/networks"
CONFIGURATION = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{names.CONFIGMAP}"
RELEASE = "network"


@pytest.fixture
def helm(server: ApiServer) -> Iterator[helm_python.Config]:
    """Helm without a release, whatever the test leaves."""
    with helm_python.Config(kubeconfig_path=str(server.kubeconfig), namespace=NAMESPACE) as config:
        yield config
        config.uninstall(RELEASE, ignore_not_found=True)


def install(helm: helm_python.Config, chart: Path, values: Json | None = None) -> Json:
    release: Json = helm.install(chart, RELEASE, values or {}, namespace=NAMESPACE, create_namespace=True)
    return release


def write_ca_bundle(rest: Rest, pem: bytes) -> None:
    """What the reconciler does."""
    patch = ca_bundle_patch(rest.read(WEBHOOK), NAMESPACE, names.webhook_hosts(NAMESPACE), pem)
    assert rest.call("PATCH", WEBHOOK, patch, content="application/json-patch+json").status == 200


def columns(rest: Rest) -> list[str]:
    (version,) = rest.read(STREAMS)["spec"]["versions"]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def older_chart(chart: Path, folder: Path) -> Path:
    """The chart as an earlier version might have been: with one column less, and one role less."""
    shutil.copytree(chart, folder)
    definition = folder / "files" / "crds" / "network.edgefarm.io_streams.yaml"
    content = yaml.safe_load(definition.read_text())
    content["spec"]["versions"][0]["additionalPrinterColumns"].pop()
    definition.write_text(yaml.safe_dump(content))
    (folder / "templates" / "vault-clusterrolebinding.yaml").unlink()
    return folder


@pytest.mark.parametrize("values", ["external", "mesh"])
def test_an_api_server_takes_what_is_rendered(rest: Rest, helm: helm_python.Config, chart: Path, values: str) -> None:
    release = install(helm, chart, values_of(values))
    installed = [obj for obj in yaml.safe_load_all(release["manifest"]) if obj]
    assert kinds(objects(values_of(values))) <= kinds(installed)
    assert rest.read(CONFIGURATION)["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_an_upgrade_leaves_what_the_reconciler_wrote(rest: Rest, helm: helm_python.Config, chart: Path) -> None:
    install(helm, chart)
    write_ca_bundle(rest, b"authority")
    helm.upgrade(chart, RELEASE, {"webhook": {"failurePolicy": "Ignore"}, "resync": "5m"}, namespace=NAMESPACE)
    (entry,) = rest.read(WEBHOOK)["webhooks"]
    assert entry["failurePolicy"] == "Ignore"
    assert base64.b64decode(entry["clientConfig"]["caBundle"]) == b"authority"
    assert "resync: 5m" in rest.read(CONFIGURATION)["data"]["config.yaml"]


def test_definitions_are_upgraded_and_rolled_back_with_the_release(
    rest: Rest, helm: helm_python.Config, chart: Path, work: Path
) -> None:
    install(helm, older_chart(chart, work / "older"))
    network = {"metadata": {"name": "plant"}, "spec": {"namespaces": ["team-a"]}}
    rest.create(NETWORKS, {"apiVersion": names.API_VERSION, "kind": "Network", **network})
    before = columns(rest)
    helm.upgrade(chart, RELEASE, namespace=NAMESPACE)
    assert columns(rest) == [*before, "Age"]
    helm.rollback(RELEASE, version=1)
    assert columns(rest) == before
    assert rest.read(f"{NETWORKS}/plant")["spec"]["namespaces"] == ["team-a"]
    rest.delete(f"{NETWORKS}/plant")


def test_uninstalling_leaves_objects_but_no_webhook_and_no_rights(
    rest: Rest, helm: helm_python.Config, chart: Path
) -> None:
    install(helm, chart)
    network = {"metadata": {"name": "kept"}, "spec": {"namespaces": ["team-a"]}}
    rest.create(NETWORKS, {"apiVersion": names.API_VERSION, "kind": "Network", **network})
    helm.uninstall(RELEASE)
    assert rest.get(WEBHOOK).status == 404
    assert rest.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/network-controller").status == 404
    assert rest.get(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/network-controller").status == 404
    assert rest.read(f"{NETWORKS}/kept")["spec"]["namespaces"] == ["team-a"]

    install(helm, chart)  # finds all of it again
    assert rest.get(WEBHOOK).status == 200
    assert rest.read(f"{NETWORKS}/kept")["spec"]["namespaces"] == ["team-a"]
    rest.delete(f"{NETWORKS}/kept")


def test_a_wrong_value_stops_an_upgrade_before_anything_is_changed(
    rest: Rest, helm: helm_python.Config, chart: Path
) -> None:
    install(helm, chart)
    before = rest.read(CONFIGURATION)["metadata"]["resourceVersion"]
    with pytest.raises(helm_python.HelmError, match="additional properties 'failurepolicy' not allowed"):
        helm.upgrade(chart, RELEASE, {"webhook": {"failurepolicy": "Ignore"}}, namespace=NAMESPACE)
    assert rest.read(CONFIGURATION)["metadata"]["resourceVersion"] == before
