"""Role based access control over HTTP: who may do what, in whose words it is refused, and who may grant it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.apiserver.rest import Json, Rest, deployment

GROUP = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1"
READ_PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}


class Tenant:
    """A service account of its own namespace, and what the administrator gives it."""

    def __init__(self, admin: Rest, namespace: str) -> None:
        self.admin, self.namespace = admin, namespace
        token = admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts/default/token", {"spec": {}})
        self.rest = admin.as_token(token["status"]["token"])
        self.name = f"system:serviceaccount:{namespace}:default"
        self.roles = f"{GROUP}/namespaces/{namespace}/roles"
        self.bindings = f"{GROUP}/namespaces/{namespace}/rolebindings"

    def grant(self, *rules: Json, name: str = "given") -> None:
        self.admin.create(self.roles, {"metadata": {"name": name}, "rules": list(rules)})
        self.admin.create(self.bindings, self.binding(name))

    def binding(self, role: str, kind: str = "Role", name: str = "") -> Json:
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": self.namespace}
        return {"metadata": {"name": name or role}, "roleRef": {"kind": kind, "name": role}, "subjects": [subject]}

    def path(self, plural: str, group: str = "") -> str:
        base = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{plural}"


@pytest.fixture
def tenant(rest: Rest, namespace: str) -> Tenant:
    return Tenant(rest, namespace)


def test_nothing_is_allowed_that_nobody_granted(tenant: Tenant) -> None:
    answer = tenant.rest.get(tenant.path("pods"))
    assert answer.status == 403
    assert answer.body["reason"] == "Forbidden"
    assert answer.body["details"] == {"kind": "pods"}
    assert answer.body["message"] == (
        f'pods is forbidden: User "{tenant.name}" cannot list resource "pods" in API group "" in the namespace '
        f'"{tenant.namespace}"'
    )


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/api/v1/nodes/n", 'nodes "n" is forbidden: User "{}" cannot get resource "nodes" in API group "" at'),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            'deployments.apps "d" is forbidden: User "{}" cannot patch resource "deployments/scale" in API',
        ),
        ("GET", "/metrics", 'forbidden: User "{}" cannot get path "/metrics"'),
        ("GET", "/apis/absent.example.org/v1/things", "things.absent.example.org is forbidden: User"),
    ],
)
def test_refusals_are_in_kubernetes_words(tenant: Tenant, method: str, path: str, sentence: str) -> None:
    answer = tenant.rest.call(method, path, {}, "application/merge-patch+json")
    assert answer.status == 403
    assert sentence.format(tenant.name) in answer.body["message"]


def test_a_role_counts_from_the_moment_it_is_bound_until_it_is_gone(tenant: Tenant) -> None:
    tenant.grant(READ_PODS)
    assert tenant.rest.get(tenant.path("pods")).status == 200
    assert tenant.rest.get("/api/v1/pods").status == 403
    assert tenant.rest.get("/api/v1/namespaces/default/pods").status == 403
    assert tenant.rest.delete(tenant.path("pods")).status == 403
    tenant.admin.delete(f"{tenant.bindings}/given")
    assert tenant.rest.get(tenant.path("pods")).status == 403


def test_names_limit_a_rule_to_single_objects(tenant: Tenant) -> None:
    tenant.grant(
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["get", "list", "update"]}
    )
    for name in ("mine", "other"):
        tenant.admin.create(tenant.path("configmaps"), {"metadata": {"name": name}})
    assert tenant.rest.get(tenant.path("configmaps") + "/mine").status == 200
    assert tenant.rest.get(tenant.path("configmaps") + "/other").status == 403
    assert tenant.rest.get(tenant.path("configmaps")).status == 403
    one = tenant.rest.get(tenant.path("configmaps") + "?fieldSelector=metadata.name%3Dmine")
    assert [item["metadata"]["name"] for item in one.body["items"]] == ["mine"]


def test_a_subresource_needs_a_rule_of_its_own(tenant: Tenant) -> None:
    tenant.grant({"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["*"]})
    tenant.admin.create(tenant.path("deployments", "apps"), deployment("web"))
    path = tenant.path("deployments", "apps") + "/web"
    assert tenant.rest.patch(f"{path}/scale", {"spec": {"replicas": 2}}).status == 200
    assert tenant.rest.get(path).status == 403


def test_applying_something_new_needs_the_right_to_create_it(tenant: Tenant) -> None:
    tenant.grant({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch"]})
    path = tenant.path("configmaps") + "/new?fieldManager=test"
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}
    refused = tenant.rest.patch(path, applied, "apply-patch+yaml")
    assert refused.status == 403
    assert 'cannot create resource "configmaps"' in refused.body["message"]
    tenant.grant({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}, name="more")
    assert tenant.rest.patch(path, applied, "apply-patch+yaml").status == 201


def test_a_binding_to_a_role_that_is_missing_says_so(tenant: Tenant) -> None:
    tenant.admin.create(tenant.bindings, tenant.binding("absent"))
    message = tenant.rest.get(tenant.path("pods")).body["message"]
    assert message.endswith(': RBAC: role.rbac.authorization.k8s.io "absent" not found')


def test_everybody_may_ask_what_the_api_offers(tenant: Tenant) -> None:
    for path in ("/api", "/apis", "/api/v1", "/apis/apps/v1", "/openapi/v3", "/version", "/openid/v1/jwks"):
        assert tenant.rest.get(path).status == 200, path


def test_a_stranger_sees_health_and_version_only(rest: Rest) -> None:
    stranger = rest.as_token("")
    assert stranger.get("/readyz").status == 200
    assert stranger.get("/version").status == 200
    answer = stranger.get("/api/v1/namespaces")
    assert answer.status == 403
    assert 'User "system:anonymous" cannot list resource "namespaces"' in answer.body["message"]
    assert rest.as_token("nonsense").get("/version").status == 401


def test_roles_are_aggregated_by_label(
    rest: Rest, tenant: Tenant, fresh: Callable[[str], str], local_only: None
) -> None:
    name = fresh("extra")
    things = {"apiGroups": ["things.example.org"], "resources": ["things"], "verbs": ["get"]}
    labels = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    tenant.admin.create(tenant.bindings, tenant.binding("admin", "ClusterRole"))
    path = tenant.path("things", "things.example.org") + "/t"
    assert tenant.rest.get(path).status == 403
    rest.create(f"{GROUP}/clusterroles", {"metadata": {"name": name, "labels": labels}, "rules": [things]})
    assert tenant.rest.get(path).status == 404
    assert things in rest.read(f"{GROUP}/clusterroles/view")["rules"]
    rest.delete(f"{GROUP}/clusterroles/{name}")
    assert tenant.rest.get(path).status == 403
    assert things not in rest.read(f"{GROUP}/clusterroles/admin")["rules"]


MANAGE_ROLES = {
    "apiGroups": ["rbac.authorization.k8s.io"],
    "resources": ["roles", "rolebindings"],
    "verbs": ["create", "get", "patch"],
}


def test_no_user_grants_more_than_it_holds(tenant: Tenant) -> None:
    tenant.grant(MANAGE_ROLES, READ_PODS)
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert tenant.rest.post(tenant.roles, {"metadata": {"name": "same"}, "rules": [READ_PODS]}).status == 201
    refused = tenant.rest.post(tenant.roles, {"metadata": {"name": "more"}, "rules": [secrets]})
    assert refused.status == 403
    assert "is attempting to grant RBAC permissions not currently held:" in refused.body["message"]
    assert refused.body["message"].endswith('\n{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}')
    assert tenant.rest.patch(f"{tenant.roles}/same", {"rules": [secrets]}).status == 403
    # What stays as it is may be written: labels, for example.
    tenant.admin.create(tenant.roles, {"metadata": {"name": "secrets"}, "rules": [secrets]})
    assert tenant.rest.patch(f"{tenant.roles}/secrets", {"metadata": {"labels": {"a": "b"}}}).status == 200
    assert tenant.rest.post(tenant.bindings, tenant.binding("same")).status == 201
    assert tenant.rest.post(tenant.bindings, tenant.binding("secrets")).status == 403
    assert tenant.rest.post(tenant.bindings, tenant.binding("cluster-admin", "ClusterRole")).status == 403
    assert tenant.rest.post(tenant.bindings, tenant.binding("absent")).status == 404


def test_escalate_and_bind_lift_that_limit(tenant: Tenant) -> None:
    lifted = {
        "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["roles"],
        "resourceNames": ["more"],
        "verbs": ["bind", "escalate"],
    }
    tenant.grant(MANAGE_ROLES, lifted)
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
    assert tenant.rest.post(tenant.roles, {"metadata": {"name": "more"}, "rules": [secrets]}).status == 201
    assert tenant.rest.post(tenant.bindings, tenant.binding("more")).status == 201


def attributes(namespace: str, **fields: Any) -> Json:
    return {"resourceAttributes": {"namespace": namespace, "resource": "pods", "verb": "list", **fields}}


def test_one_may_ask_for_oneself(tenant: Tenant) -> None:
    tenant.grant(READ_PODS)
    path = f"{REVIEWS}/selfsubjectaccessreviews"
    status = tenant.rest.create(path, {"spec": attributes(tenant.namespace)})["status"]
    origin = f'RoleBinding "given/{tenant.namespace}" of Role "given"'
    account = f'ServiceAccount "default/{tenant.namespace}"'
    assert status == {"allowed": True, "reason": f"RBAC: allowed by {origin} to {account}"}
    other = tenant.rest.create(path, {"spec": attributes(tenant.namespace, verb="delete")})["status"]
    assert not other["allowed"]
    health = tenant.rest.create(path, {"spec": {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}}})
    assert health["status"]["allowed"]
    assert tenant.rest.post(path, {"spec": {}}).status == 422
    rules = tenant.rest.create(f"{REVIEWS}/selfsubjectrulesreviews", {"spec": {"namespace": tenant.namespace}})
    assert READ_PODS in [dict(rule) for rule in rules["status"]["resourceRules"]]
    assert not rules["status"]["incomplete"]


def test_asking_for_others_is_a_right_of_its_own(tenant: Tenant) -> None:
    path = f"{REVIEWS}/subjectaccessreviews"
    wanted = {"spec": {"user": tenant.name, **attributes(tenant.namespace)}}
    assert tenant.rest.post(path, wanted).status == 403
    assert tenant.admin.create(path, wanted)["status"]["allowed"] is False
    tenant.grant(READ_PODS)
    assert tenant.admin.create(path, wanted)["status"]["allowed"] is True
    groups = {"spec": {"user": "anybody", "groups": ["system:masters"], **attributes("")}}
    assert tenant.admin.create(path, groups)["status"]["allowed"] is True
    local = f"{REVIEWS}/namespaces/{tenant.namespace}/localsubjectaccessreviews"
    assert tenant.admin.create(local, wanted)["status"]["allowed"] is True
    elsewhere = {"spec": {"user": tenant.name, **attributes("default")}}
    assert tenant.admin.post(local, elsewhere).status == 400
    assert tenant.admin.post(path, {"spec": attributes("default")}).status == 422


def test_acting_for_somebody_else_is_a_right_of_its_own(tenant: Tenant) -> None:
    tenant.grant(READ_PODS)
    headers = {"Impersonate_User": tenant.name}
    assert tenant.admin.get(tenant.path("pods"), **headers).status == 200
    assert tenant.admin.get("/api/v1/pods", **headers).status == 403
    refused = tenant.rest.get(tenant.path("pods"), Impersonate_User="admin")
    assert refused.status == 403
    assert 'cannot impersonate resource "users" in API group "" at the cluster scope' in refused.body["message"]
    group = {"Impersonate_User": "anybody", "Impersonate_Group": "system:masters"}
    assert tenant.admin.get("/api/v1/nodes", **group).status == 200
    assert tenant.rest.get("/api/v1/nodes", **group).status == 403
