"""Helm's own SDK against the API server: a release with every kind that charts of servers use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import helm_python
import pytest

from localcluster.kubernetes import ApiServer
from tests.apiserver.rest import Rest

TEMPLATE = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: web}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {colour: {{ .Values.colour }}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: {{ .Release.Namespace }}}
value: 1000
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: {{ .Release.Namespace }}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: {{ .Release.Namespace }}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ .Release.Namespace }}}
subjects: [{kind: ServiceAccount, name: web, namespace: {{ .Release.Namespace }}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: web}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}, annotations: {colour: {{ .Values.colour }}}}
    spec:
      priorityClassName: {{ .Release.Namespace }}
      serviceAccountName: web
      containers:
      - {name: main, image: "example/app:1", ports: [{containerPort: 80}], env: [{name: A, value: b}]}
"""


@pytest.fixture
def chart(tmp_path: Path) -> Iterator[helm_python.Chart]:
    folder = tmp_path / "chart"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: web\nversion: 0.1.0\n")
    (folder / "values.yaml").write_text("colour: green\n")
    (folder / "templates" / "all.yaml").write_text(TEMPLATE)
    with helm_python.Chart.load(folder) as loaded:
        yield loaded


def test_a_release_is_installed_upgraded_rolled_back_and_removed(
    server: ApiServer, rest: Rest, chart: helm_python.Chart, fresh: Callable[[str], str]
) -> None:
    namespace = fresh("release")
    with helm_python.Config(kubeconfig_path=str(server.kubeconfig), namespace=namespace) as helm:

        def colour() -> str:
            return str(rest.read(f"/api/v1/namespaces/{namespace}/configmaps/web")["data"]["colour"])

        helm.install(chart, "web", namespace=namespace, create_namespace=True)
        assert colour() == "green"
        helm.upgrade(chart, "web", {"colour": "red"}, namespace=namespace, dry_run="server")
        assert colour() == "green"
        helm.upgrade(chart, "web", {"colour": "blue"}, namespace=namespace)
        assert colour() == "blue"
        helm.rollback("web", version=1)
        assert colour() == "green"
        secrets = rest.read(f"/api/v1/namespaces/{namespace}/secrets")["items"]
        assert [secret["type"] for secret in secrets] == ["helm.sh/release.v1"] * 3
        helm.uninstall("web")
    assert rest.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/web").status == 404
    assert rest.get(f"/apis/scheduling.k8s.io/v1/priorityclasses/{namespace}").status == 404


def test_a_field_that_somebody_else_changed_is_a_conflict(
    server: ApiServer, rest: Rest, chart: helm_python.Chart, fresh: Callable[[str], str]
) -> None:
    namespace = fresh("release")
    with helm_python.Config(kubeconfig_path=str(server.kubeconfig), namespace=namespace) as helm:
        helm.install(chart, "web", namespace=namespace, create_namespace=True)
        rest.patch(f"/api/v1/namespaces/{namespace}/configmaps/web", {"data": {"colour": "grey"}})
        with pytest.raises(helm_python.HelmError, match="conflict"):
            helm.upgrade(chart, "web", {"colour": "blue"}, namespace=namespace)
        assert rest.read(f"/api/v1/namespaces/{namespace}/configmaps/web")["data"]["colour"] == "grey"
