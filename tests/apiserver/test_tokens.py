"""Service account tokens: issued, bound, reviewed, and void when what they are bound to is gone."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from localcluster.kubernetes import ISSUER
from tests.apiserver.rest import Json, Rest, pod

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


@pytest.fixture
def account(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/default"


def request(rest: Rest, account: str, **spec: Any) -> str:
    answer = rest.post(f"{account}/token", {"spec": spec})
    assert answer.status == 201, answer
    return str(answer.body["status"]["token"])


def claims(token: str) -> Json:
    part = token.split(".")[1]
    decoded: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def review(rest: Rest, token: str, *audiences: str) -> Json:
    spec = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
    answer = rest.post(REVIEWS, {"spec": spec})
    assert answer.status == 201, answer
    status: Json = answer.body["status"]
    return status


def bound(made: Json) -> Json:
    metadata = made["metadata"]
    return {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}


def test_a_token_names_its_account_audience_and_lifetime(rest: Rest, namespace: str, account: str) -> None:
    answer = rest.post(f"{account}/token", {"spec": {"audiences": ["vault"], "expirationSeconds": 700}})
    token = answer.body["status"]["token"]
    body = claims(token)
    assert body["iss"] == ISSUER
    assert body["aud"] == ["vault"]
    assert body["exp"] - body["iat"] == 700
    assert abs(body["iat"] - time.time()) < 60
    assert body["sub"] == f"system:serviceaccount:{namespace}:default"
    uid = rest.read(account)["metadata"]["uid"]
    assert body["kubernetes.io"] == {
        "namespace": namespace,
        "serviceaccount": {"name": "default", "uid": uid},
    }
    assert body["jti"]
    assert answer.body["status"]["expirationTimestamp"].endswith("Z")


def test_a_review_tells_who_holds_the_token(rest: Rest, namespace: str, account: str) -> None:
    status = review(rest, request(rest, account, audiences=["vault", "other"]), "vault", "third")
    assert status["authenticated"] is True
    assert status["audiences"] == ["vault"]
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert status["user"]["uid"] == rest.read(account)["metadata"]["uid"]
    assert status["user"]["groups"] == [
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    ]


def test_a_token_for_another_audience_is_not_authenticated(rest: Rest, account: str) -> None:
    token = request(rest, account, audiences=["vault"])
    for status in (review(rest, token, "other"), review(rest, token)):
        assert status.get("authenticated", False) is False
        assert "audiences" in status["error"]


def test_a_changed_token_is_not_authenticated(rest: Rest, account: str) -> None:
    head, body, signature = request(rest, account).split(".")
    forged = claims(f"{head}.{body}.{signature}") | {"sub": "system:serviceaccount:kube-system:admin"}
    part = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
    for token in (f"{head}.{part}.{signature}", f"{head}.{body}.", "garbage", "a.b.c"):
        status = review(rest, token)
        assert status.get("authenticated", False) is False
        assert status["error"]


def test_a_pod_bound_token_names_pod_and_node(rest: Rest, namespace: str, account: str) -> None:
    node = rest.post("/api/v1/nodes", {"metadata": {"name": f"node-{namespace}"}}).body
    made = rest.create(f"/api/v1/namespaces/{namespace}/pods", pod("p", nodeName=node["metadata"]["name"]))
    token = request(rest, account, audiences=["vault"], boundObjectRef=bound(made))
    private = claims(token)["kubernetes.io"]
    assert private["pod"] == {"name": "p", "uid": made["metadata"]["uid"]}
    assert private["node"] == {"name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
    extra = review(rest, token, "vault")["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["p"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [made["metadata"]["uid"]]
    assert extra["authentication.kubernetes.io/node-name"] == [node["metadata"]["name"]]
    assert extra["authentication.kubernetes.io/node-uid"] == [node["metadata"]["uid"]]
    assert extra["authentication.kubernetes.io/credential-id"] == [f"JTI={claims(token)['jti']}"]


def test_a_bound_token_dies_with_its_pod(rest: Rest, namespace: str, account: str) -> None:
    pods = f"/api/v1/namespaces/{namespace}/pods"
    made = rest.create(pods, pod("p"))
    token = request(rest, account, audiences=["vault"], boundObjectRef=bound(made))
    assert review(rest, token, "vault")["authenticated"] is True
    rest.delete(f"{pods}/p")
    deadline = time.monotonic() + 30  # a real server remembers an answer for ten seconds
    while review(rest, token, "vault").get("authenticated") and time.monotonic() < deadline:
        time.sleep(0.2)
    status = review(rest, token, "vault")
    assert status.get("authenticated", False) is False
    rest.create(pods, pod("p"))
    assert review(rest, token, "vault").get("authenticated", False) is False


def test_a_token_dies_with_its_service_account(rest: Rest, namespace: str) -> None:
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    rest.create(accounts, {"metadata": {"name": "short"}})
    token = request(rest, f"{accounts}/short")
    rest.delete(f"{accounts}/short")
    assert review(rest, token).get("authenticated", False) is False
    rest.create(accounts, {"metadata": {"name": "short"}})
    assert review(rest, token).get("authenticated", False) is False


def test_tokens_for_pods_that_do_not_fit_are_refused(rest: Rest, namespace: str, account: str) -> None:
    pods, accounts = f"/api/v1/namespaces/{namespace}/pods", f"/api/v1/namespaces/{namespace}/serviceaccounts"
    rest.create(accounts, {"metadata": {"name": "other"}})
    made = rest.create(pods, pod("p", serviceAccountName="other"))
    absent = {"kind": "Pod", "apiVersion": "v1", "name": "absent", "uid": "x"}
    assert rest.post(f"{account}/token", {"spec": {"boundObjectRef": absent}}).status == 404
    assert rest.post(f"{account}/token", {"spec": {"boundObjectRef": bound(made)}}).status == 400
    wrong_uid = {**bound(made), "uid": "00000000-0000-0000-0000-000000000000"}
    assert rest.post(f"{accounts}/other/token", {"spec": {"boundObjectRef": wrong_uid}}).status == 409


def test_a_token_for_less_than_ten_minutes_is_invalid(rest: Rest, account: str) -> None:
    answer = rest.post(f"{account}/token", {"spec": {"expirationSeconds": 60}})
    assert answer.status == 422
    assert "may not specify a duration less than 10 minutes" in answer.body["message"]


def test_an_absent_account_gets_no_token(rest: Rest, namespace: str) -> None:
    answer = rest.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/absent/token", {"spec": {}})
    assert answer.status == 404
    assert answer.body["message"] == 'serviceaccounts "absent" not found'


def test_a_service_account_is_a_caller_too(rest: Rest, namespace: str, account: str) -> None:
    own = rest.as_token(request(rest, account))
    me = own.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}).body["status"]["userInfo"]
    assert me["username"] == f"system:serviceaccount:{namespace}:default"
    foreign = rest.as_token(request(rest, account, audiences=["vault"]))
    assert foreign.get("/api/v1/nodes").status == 401


def test_the_keys_are_published(rest: Rest, account: str) -> None:
    head = request(rest, account).split(".")[0]
    header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    keys = rest.read("/openid/v1/jwks")["keys"]
    assert (header["kid"], header["alg"]) in [(key["kid"], key["alg"]) for key in keys]
    configuration = rest.read("/.well-known/openid-configuration")
    assert configuration["issuer"] == ISSUER
    assert configuration["jwks_uri"].endswith("/openid/v1/jwks")
