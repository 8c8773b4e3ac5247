"""OpenBao's `kubernetes` auth method against the API server: the way every sidecar proves who it is."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcluster.stack import OpenBao
from tests.apiserver.rest import Json, Rest, pod

AUDIENCE = "vault"
Bao = Callable[[str, Json], tuple[int, Json]]


@pytest.fixture
def bao(openbao: OpenBao) -> Bao:
    """POSTs to OpenBao as root."""
    context = ssl.create_default_context(cafile=str(openbao.ca))

    def post(path: str, body: Json) -> tuple[int, Json]:
        headers = {"X-Vault-Token": openbao.root_token}
        request = urllib.request.Request(
            f"{openbao.address}/v1/{path}", data=json.dumps(body).encode(), headers=headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")

    return post


@pytest.fixture
def mount(rest: Rest, bao: Bao, namespace: str) -> Iterator[str]:
    """An auth mount that trusts the API server, with the role `app` for the test's account `default`."""
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    rest.create(accounts, {"metadata": {"name": "reviewer"}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"}
    subject = {"kind": "ServiceAccount", "name": "reviewer", "namespace": namespace}
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    name = f"reviewer-{namespace}"
    rest.create(bindings, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    reviewer = rest.create(f"{accounts}/reviewer/token", {"spec": {}})["status"]["token"]
    mount = f"kubernetes-{namespace}"
    assert bao(f"sys/auth/{mount}", {"type": "kubernetes"})[0] == 204
    config = {
        "kubernetes_host": rest.url,
        "kubernetes_ca_cert": rest.ca.read_text(),
        "token_reviewer_jwt": reviewer,
        "disable_local_ca_jwt": True,
    }
    assert bao(f"auth/{mount}/config", config)[0] in (200, 204)
    bound: dict[str, Any] = {
        "bound_service_account_names": ["default"],
        "bound_service_account_namespaces": [namespace],
        "audience": AUDIENCE,
        "token_type": "batch",
    }
    assert bao(f"auth/{mount}/role/app", bound)[0] in (200, 204)
    yield mount
    rest.delete(f"{bindings}/{name}")


def token(rest: Rest, namespace: str, account: str, audience: str) -> str:
    made = rest.create(f"/api/v1/namespaces/{namespace}/pods", pod(f"{account}-{audience}", serviceAccountName=account))
    reference = {"kind": "Pod", "apiVersion": "v1", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    spec = {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": reference}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return str(rest.create(path, {"spec": spec})["status"]["token"])


def test_the_bound_account_logs_in_with_its_pods_token(rest: Rest, bao: Bao, mount: str, namespace: str) -> None:
    proof = token(rest, namespace, "default", AUDIENCE)
    status, answer = bao(f"auth/{mount}/login", {"role": "app", "jwt": proof})
    assert status == 200, answer
    assert answer["auth"]["metadata"]["service_account_name"] == "default"


def test_other_audiences_and_accounts_are_refused(rest: Rest, bao: Bao, mount: str, namespace: str) -> None:
    rest.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "other"}})
    for account, audience in (("default", "elsewhere"), ("other", AUDIENCE)):
        proof = token(rest, namespace, account, audience)
        assert bao(f"auth/{mount}/login", {"role": "app", "jwt": proof})[0] in (400, 403)


def test_a_token_of_a_deleted_pod_is_refused(rest: Rest, bao: Bao, mount: str, namespace: str) -> None:
    proof = token(rest, namespace, "default", AUDIENCE)
    rest.delete(f"/api/v1/namespaces/{namespace}/pods/default-{AUDIENCE}")
    assert bao(f"auth/{mount}/login", {"role": "app", "jwt": proof})[0] in (400, 403)
