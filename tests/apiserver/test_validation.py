"""What is refused in built-in resources: each of these would otherwise pass here and fail in a real cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.rest import Json, Rest, deployment, pod


def container(**fields: Any) -> Json:
    return {"name": "main", "image": "example/app:1", **fields}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containers": []}, "spec.containers: Required value"),
        ({"containers": [container(name="")]}, "spec.containers[0].name: Required value"),
        ({"containers": [container(image="")]}, "spec.containers[0].image: Required value"),
        ({"containers": [container(name="A_b")]}, 'spec.containers[0].name: Invalid value: "A_b": '),
        ({"containers": [container(), container()]}, 'spec.containers[1].name: Duplicate value: "main"'),
        ({"initContainers": [container()]}, 'Duplicate value: "main"'),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {
                "volumes": [{"name": "v"}],
                "containers": [container(volumeMounts=[{"name": "v", "mountPath": "/v"}] * 2)],
            },
            'spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique',
        ),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]},
            "may not specify more than 1 volume type",
        ),
        (
            {"containers": [container(ports=[{"name": "p", "containerPort": 1}, {"name": "p", "containerPort": 2}])]},
            'spec.containers[0].ports[1].name: Duplicate value: "p"',
        ),
        ({"containers": [container(ports=[{"containerPort": 0}])]}, "spec.containers[0].ports[0].containerPort"),
        (
            {"initContainers": [container(name="i", startupProbe={"exec": {"command": ["x"]}})]},
            "spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers",
        ),
        (
            {"initContainers": [container(name="i", lifecycle={"preStop": {"exec": {"command": ["x"]}}})]},
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy",
        ),
        ({"containers": [container(env=[{"name": "GRUß"}])]}, 'spec.containers[0].env[0].name: Invalid value: "GRUß"'),
        ({"containers": [container(env=[{"name": "A=B"}])]}, "only of printable ASCII characters other than '='"),
        (
            {"containers": [container(resources={"limits": {"hugepages-2Mi": "4Mi"}})]},
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        ({"restartPolicy": "Sometimes"}, 'spec.restartPolicy: Unsupported value: "Sometimes"'),
    ],
)
def test_pods_that_cannot_run_are_refused(rest: Rest, namespace: str, spec: Json, message: str) -> None:
    answer = rest.post(f"/api/v1/namespaces/{namespace}/pods", pod("p", **spec))
    assert answer.status == 422, answer
    assert message in answer.body["message"]


def test_what_is_near_to_a_mistake_is_admitted(rest: Rest, namespace: str) -> None:
    hook = {"preStop": {"exec": {"command": ["x"]}}}
    pages = {"limits": {"hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1"}}
    spec = {
        "initContainers": [container(name="i", restartPolicy="Always", lifecycle=hook)],
        "containers": [container(env=[{"name": "a b~!<>"}], resources=pages)],
    }
    rest.create(f"/api/v1/namespaces/{namespace}/pods", pod("p", **spec))


@pytest.mark.parametrize("labels", [{"a b": "c"}, {"a": "b c"}, {"a": "x" * 64}, {"/a": "b"}, {"A_B.example/x": "-"}])
def test_labels_that_are_none_are_refused(rest: Rest, namespace: str, labels: Json) -> None:
    body = {"metadata": {"name": "c", "labels": labels}}
    assert rest.post(f"/api/v1/namespaces/{namespace}/configmaps", body).status == 422


def test_the_spec_of_a_pod_is_immutable_but_for_images(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    rest.create(path, pod("p"))
    answer = rest.patch(f"{path}/p", {"spec": {"hostname": "other"}})
    assert answer.status == 422
    assert "spec: Forbidden: pod updates may not change fields other than" in answer.body["message"]
    image = {"spec": {"containers": [{"name": "main", "image": "example/app:2"}]}}
    assert rest.patch(f"{path}/p", image, "strategic-merge-patch+json").status == 200


def test_a_selector_must_match_the_template(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    body = deployment("web")
    body["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    answer = rest.post(path, body)
    assert answer.status == 422
    assert "`selector` does not match template `labels`" in answer.body["message"]


def test_a_selector_is_immutable(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    rest.create(path, deployment("web"))
    labels = {"app": "web", "more": "yes"}
    patch = {"spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}}}}
    answer = rest.patch(f"{path}/web", patch)
    assert answer.status == 422
    assert "field is immutable" in answer.body["message"]


def test_templates_are_checked_like_pods(rest: Rest, namespace: str) -> None:
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    answer = rest.post(path, deployment("web", containers=[container(image="")]))
    assert "spec.template.spec.containers[0].image: Required value" in answer.body["message"]
    once = rest.post(path, deployment("web", restartPolicy="Never"))
    assert (
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"'
        in once.body["message"]
    )


@pytest.mark.parametrize("kind", ["statefulsets", "deployments", "replicasets"])
def test_workloads_need_a_selector(rest: Rest, namespace: str, kind: str) -> None:
    body = deployment("web")
    body["kind"] = {"statefulsets": "StatefulSet", "replicasets": "ReplicaSet"}.get(kind, "Deployment")
    del body["spec"]["selector"]
    answer = rest.post(f"/apis/apps/v1/namespaces/{namespace}/{kind}", body)
    assert answer.status == 422
    assert "spec.selector: Required value" in answer.body["message"]


def test_templates_of_stateful_sets_mount_their_claims(rest: Rest, namespace: str) -> None:
    body = deployment("db", containers=[container(volumeMounts=[{"name": "data", "mountPath": "/data"}])])
    body["kind"] = "StatefulSet"
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    body["spec"] |= {"serviceName": "db", "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}]}
    rest.create(f"/apis/apps/v1/namespaces/{namespace}/statefulsets", body)


def test_immutable_configmaps_stay_as_they_are(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    rest.create(path, {"metadata": {"name": "c"}, "data": {"a": "1"}, "immutable": True})
    answer = rest.patch(f"{path}/c", {"data": {"a": "2"}})
    assert answer.status == 422
    assert "field is immutable when `immutable` is set" in answer.body["message"]


def test_a_role_cannot_be_exchanged_in_a_binding(rest: Rest, namespace: str) -> None:
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    rest.create(path, {"metadata": {"name": "b"}, "roleRef": reference, "subjects": []})
    answer = rest.patch(f"{path}/b", {"roleRef": {"name": "edit"}})
    assert answer.status == 422
    assert "cannot change roleRef" in answer.body["message"]


def test_unknown_fields_of_built_in_kinds_are_dropped_or_refused(rest: Rest, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/pods"
    body = pod("p", unknown=1)
    strict = rest.post(f"{path}?fieldValidation=Strict", body)
    assert strict.status == 400
    assert 'unknown field "spec.unknown"' in strict.body["message"]
    made = rest.post(f"{path}?fieldValidation=Warn", body)
    assert 'unknown field \\"spec.unknown\\"' in made.headers["Warning"]
    assert "unknown" not in made.body["spec"]


@pytest.mark.parametrize(
    "spec",
    [{"containers": "text"}, {"containers": [1]}, {"nodeName": 1}, {"terminationGracePeriodSeconds": "soon"}],
)
def test_wrong_types_in_built_in_kinds_are_bad_requests(rest: Rest, namespace: str, spec: Json) -> None:
    answer = rest.post(f"/api/v1/namespaces/{namespace}/pods", pod("p", **spec))
    assert answer.status == 400
    assert 'Pod in version "v1" cannot be handled as a Pod' in answer.body["message"]
