"""The real webhook process over TLS: what it answers to the API server, and to everything else."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import jsonpatch
import pytest

from edgefarm import names
from tests.webhook.conftest import StartWebhook, Webhook, make_pod, make_review, patch_of, sidecar_of
from webhook.app import MAX_BODY


def test_a_review_as_a_real_api_server_sends_it_is_answered_with_a_patch_that_injects_the_sidecar(
    webhook: Webhook,
) -> None:
    pod = make_pod()
    pod["metadata"] |= {"creationTimestamp": None, "namespace": "team-a"}
    pod["spec"] |= {
        "volumes": [{"name": "kube-api-access-x2x9k", "projected": {"sources": [], "defaultMode": 420}}],
        "containers": [
            {
                "name": "app",
                "image": "example/app:1",
                "resources": {},
                "volumeMounts": [
                    {
                        "name": "kube-api-access-x2x9k",
                        "readOnly": True,
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                    }
                ],
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccount": "sensor",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    review = make_review(
        pod,
        requestKind={"group": "", "version": "v1", "kind": "Pod"},
        requestResource={"group": "", "version": "v1", "resource": "pods"},
        userInfo={
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "groups": ["system:authenticated"],
        },
        oldObject=None,
        dryRun=False,
        options={"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    )
    response = webhook.admit(review)
    assert response["uid"] == review["request"]["uid"]
    assert response["allowed"] is True
    assert "warnings" not in response
    patched = jsonpatch.apply_patch(pod, patch_of(response))
    assert patched["spec"]["initContainers"][0] == sidecar_of(patched)
    assert json.loads(patched["metadata"]["annotations"][names.ANNOTATION_STATUS])["network"] == "foo"
    review["request"] |= {"object": patched, "dryRun": True}
    assert "patch" not in webhook.admit(review)


def test_a_dry_run_gets_the_same_answer(webhook: Webhook) -> None:
    assert webhook.admit(make_review(make_pod(), dryRun=True)) == webhook.admit(make_review(make_pod()))


def test_a_denial_carries_one_sentence_that_names_the_annotation(webhook: Webhook) -> None:
    response = webhook.admit(make_review(make_pod({names.ANNOTATION_MODE: "kafka"})))
    assert response["allowed"] is False
    assert names.ANNOTATION_MODE in response["status"]["message"]
    assert response["status"]["code"] == 403


@pytest.mark.parametrize(
    "request_members",
    [
        {"resource": {"group": "apps", "version": "v1", "resource": "deployments"}, "object": {"spec": 1}},
        {"subResource": "ephemeralcontainers"},
        {"subResource": "status", "operation": "UPDATE"},
        {"operation": "DELETE", "object": None},
        {"operation": "UPDATE"},
    ],
)
def test_whatever_is_not_the_creation_of_a_pod_is_allowed_unchanged(
    webhook: Webhook, request_members: dict[str, Any]
) -> None:
    response = webhook.admit(make_review(make_pod(), **request_members))
    assert response == {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": True}


_REVIEW = make_review(make_pod())
_V1BETA1 = _REVIEW | {"apiVersion": "admission.k8s.io/v1beta1"}
_BAD_BODIES: dict[str, Any] = {
    "nothing": b"",
    "garbage": b"\x00\xff\xfe garbage",
    "half": json.dumps(_REVIEW).encode()[:-20],
    "not UTF-8": json.dumps(_REVIEW).encode().replace(b"publisher", b"publ\xffsher"),
    "deep": b"[" * 100_000,
    "list": [],
    "null": None,
    "text": "AdmissionReview",
    "other kind": _REVIEW | {"kind": "Pod"},
    "v1beta1": _V1BETA1,
    "kind is a list": _REVIEW | {"kind": []},
    "no request": {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"},
    "request is a list": _REVIEW | {"request": []},
    "no uid": make_review(make_pod(), uid=None),
    "empty uid": make_review(make_pod(), uid=""),
    "uid is a number": make_review(make_pod(), uid=7),
    "no resource": make_review(make_pod(), resource=None),
    "no object": make_review(None),
    "object is a text": make_review("pod"),
    "object without spec": make_review({"metadata": {}}),
    "metadata is a list": make_review(make_pod() | {"metadata": []}),
    "labels is a list": make_review(make_pod() | {"metadata": {"labels": ["a"]}}),
    "annotation is a number": make_review(make_pod({names.ANNOTATION_MODE: 7})),  # type: ignore[dict-item]
    "no containers": make_review(make_pod(containers=[])),
    "containers is an object": make_review(make_pod(containers={"name": "app"})),
    "container is a text": make_review(make_pod(containers=["app"])),
    "container without name": make_review(make_pod(containers=[{"image": "x"}])),
    "env is an object": make_review(make_pod(containers=[{"name": "app", "env": {"A": "b"}}])),
    "env without name": make_review(make_pod(containers=[{"name": "app", "env": [{"value": "b"}]}])),
    "mount without path": make_review(make_pod(containers=[{"name": "app", "volumeMounts": [{"name": "v"}]}])),
    "port is a text": make_review(make_pod(containers=[{"name": "app", "ports": ["80"]}])),
    "volumes is a text": make_review(make_pod(volumes="v")),
    "init containers is a number": make_review(make_pod(initContainers=3)),
    "service account is a list": make_review(make_pod(serviceAccountName=[])),
    "owner is a text": make_review(make_pod() | {"metadata": {"ownerReferences": ["x"]}}),
    "no namespace": make_review(make_pod(), namespace=None),
}


def test_whatever_is_no_review_gets_a_400_with_one_sentence_and_the_process_goes_on(webhook: Webhook) -> None:
    for name, body in _BAD_BODIES.items():
        status, text = webhook.post(body if isinstance(body, bytes) else json.dumps(body).encode())
        assert status == 400, (name, text)
        assert text.count("\n") == 1, name
        assert len(text) < 300, name
    assert webhook.admit(_REVIEW)["allowed"] is True
    assert "Traceback" not in webhook.process.log.read_text()


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/yaml", "multipart/form-data; boundary=x"]
)
def test_another_content_type_gets_a_415(webhook: Webhook, content_type: str | None) -> None:
    status, text = webhook.post(_REVIEW, content_type)
    assert (status, text) == (415, "the content type must be application/json\n")


def test_parameters_of_the_content_type_do_not_matter(webhook: Webhook) -> None:
    assert webhook.post(_REVIEW, "Application/JSON; charset=utf-8")[0] == 200


def test_other_paths_and_methods_are_refused_with_a_sentence(webhook: Webhook) -> None:
    assert webhook.post(_REVIEW, path="/") == (404, "there is nothing at this path\n")
    connection = webhook.connect()
    connection.request("GET", "/mutate")
    response = connection.getresponse()
    assert (response.status, response.read()) == (405, b"this path does not take this method\n")
    assert response.getheader("allow") == "POST"
    connection.close()


def test_a_body_over_the_limit_gets_a_413(webhook: Webhook) -> None:
    status, text = webhook.post(b" " * (MAX_BODY + 1))
    assert (status, text) == (413, f"the body is larger than {MAX_BODY} bytes\n")


def test_a_chunked_body_is_read_and_limited_like_any_other(webhook: Webhook) -> None:
    body = json.dumps(_REVIEW).encode()
    for chunks, expected in (([body[:100], body[100:]], 200), ([b" " * 65536] * 60, 413)):
        connection = webhook.connect()
        connection.request("POST", "/mutate", iter(chunks), {"Content-Type": "application/json"}, encode_chunked=True)
        response = connection.getresponse()
        response.read()
        assert response.status == expected
        connection.close()


def test_bytes_that_are_not_http_or_not_tls_harm_nobody(webhook: Webhook) -> None:
    context = ssl.create_default_context(cafile=str(webhook.authority.certificate))
    with (
        socket.create_connection(("127.0.0.1", webhook.port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(1000)
    assert webhook.admit(_REVIEW)["allowed"] is True


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(webhook: Webhook) -> None:
    connection = webhook.connect()
    connection.putrequest("POST", "/mutate")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"{")
    connection.close()
    assert webhook.admit(_REVIEW)["allowed"] is True
    assert "Traceback" not in webhook.process.log.read_text()


def test_decisions_are_counted_and_logged_without_the_contents_of_pods(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    secret = "correct horse battery staple"
    pod = make_pod(containers=[{"name": "app", "env": [{"name": "PASSWORD", "value": secret}]}])
    webhook.admit(make_review(pod))
    webhook.admit(make_review(make_pod({names.ANNOTATION_INJECT: "false"})))
    denied = webhook.admit(make_review(make_pod({names.ANNOTATION_INJECT: secret})))
    assert secret in denied["status"]["message"]
    webhook.post(b"garbage")
    status, metrics = webhook.get("/metrics")
    assert status == 200
    for line in (
        'edgefarm_webhook_admissions_total{outcome="inject",reason="Injected"} 1.0',
        'edgefarm_webhook_admissions_total{outcome="skip",reason="OptedOut"} 1.0',
        'edgefarm_webhook_admissions_total{outcome="deny",reason="InvalidAnnotation"} 1.0',
        'edgefarm_webhook_admissions_total{outcome="refused",reason="400"} 1.0',
        "edgefarm_webhook_request_seconds_count 3.0",
        "edgefarm_webhook_certificate_not_after_timestamp_seconds ",
    ):
        assert line in metrics
    log = webhook.process.log.read_text()
    assert secret not in log
    decisions = [event for event in map(json.loads, log.splitlines()) if event["event"] == "admission"]
    assert [(event["outcome"], event["reason"], event["annotation"]) for event in decisions] == [
        ("inject", "Injected", ""),
        ("skip", "OptedOut", ""),
        ("deny", "InvalidAnnotation", names.ANNOTATION_INJECT),
    ]
    assert {(event["namespace"], event["pod"]) for event in decisions} == {("team-a", "publisher-6f7d8c9b5-")}
