"""Admission: webhooks over TLS, and the ServiceAccount plugin around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from localcluster.stack import Authority
from tests.apiserver.rest import Answer, Json, Rest, pod
from tests.apiserver.waiting import eventually
from tests.apiserver.webhook import Decide, Webhook, allow, configuration, patching

GROUP = "/apis/admissionregistration.k8s.io/v1"
MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ADD_CONTAINER = {"op": "add", "path": "/spec/containers/-", "value": {"name": "extra", "image": "example/extra:1"}}

Register = Callable[..., Webhook]


@pytest.fixture
def pods(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


@pytest.fixture
def register(
    rest: Rest, authority: Authority, namespace: str, pods: str, fresh: Callable[[str], str]
) -> Iterator[Register]:
    """Starts a webhook and registers it for the pods of the test's namespace."""
    running: list[tuple[Webhook, str]] = []

    def start(decide: Decide, kind: str = "Mutating", client: Json | None = None, **hook: Any) -> Webhook:
        name = fresh("hook")
        started = Webhook(authority, decide).__enter__()
        path = f"{GROUP}/{kind.lower()}webhookconfigurations"
        rest.create(path, configuration(name, client or started.by_url(), namespace, kind, **hook))
        running.append((started, f"{path}/{name}"))
        return started

    yield start
    for started, path in running:
        rest.delete(path)
        started.__exit__()


def create(rest: Rest, pods: str, body: Json, until: Callable[[Answer], bool]) -> Answer:
    """Create the pod again (dry run) until the server has noticed its webhooks."""
    answers: list[Answer] = []

    def tried() -> bool:
        answers.append(rest.post(f"{pods}?dryRun=All", body))
        return until(answers[-1])

    eventually(tried)
    return answers[-1]


def names(answer: Answer) -> list[str]:
    return [container["name"] for container in answer.body.get("spec", {}).get("containers", ())]


def test_the_class_of_a_pod_follows_from_what_webhooks_have_made_of_it(
    rest: Rest, pods: str, register: Register
) -> None:
    size = {"requests": {"cpu": "1"}}
    hook = register(patching({"op": "add", "path": "/spec/containers/0/resources", "value": size}))
    stored = create(rest, pods, pod("a"), lambda answer: bool(hook.requests))
    assert stored.body["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    assert "qosClass" not in hook.requests[0]["object"].get("status", {})


def test_a_pod_gets_its_service_account_and_token_volume(rest: Rest, pods: str) -> None:
    made = rest.create(pods, pod("a"))
    assert made["spec"]["serviceAccountName"] == "default"
    (volume,) = made["spec"]["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    token, ca, downward = volume["projected"]["sources"][:3]  # a distribution may add its own
    assert token == {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}
    assert ca["configMap"]["name"] == "kube-root-ca.crt"
    assert downward["downwardAPI"]["items"][0]["path"] == "namespace"
    mount = {"name": volume["name"], "readOnly": True, "mountPath": MOUNT}
    assert made["spec"]["containers"][0]["volumeMounts"] == [mount]


def test_a_pod_may_do_without_a_token(rest: Rest, pods: str) -> None:
    made = rest.create(pods, pod("a", automountServiceAccountToken=False))
    assert "volumes" not in made["spec"]


def test_a_pod_with_an_absent_service_account_is_forbidden(rest: Rest, pods: str, namespace: str) -> None:
    answer = rest.post(pods, pod("a", serviceAccountName="absent"))
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    wanted = f'error looking up service account {namespace}/absent: serviceaccount "absent" not found'
    assert answer.body["message"] == f'pods "a" is forbidden: {wanted}'


def test_pods_get_kubernetes_defaults(rest: Rest, pods: str) -> None:
    spec = rest.create(pods, pod("a"))["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert (spec["terminationGracePeriodSeconds"], spec["enableServiceLinks"]) == (30, True)
    assert spec["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert len(spec["tolerations"]) == 2


def test_a_webhook_sees_the_completed_pod_and_changes_it(
    rest: Rest, pods: str, namespace: str, register: Register
) -> None:
    hook = register(patching(ADD_CONTAINER))
    answer = create(rest, pods, pod("a"), lambda answer: len(names(answer)) > 1)
    extra = answer.body["spec"]["containers"][1]
    assert extra["imagePullPolicy"] == "IfNotPresent"
    # The ServiceAccount plugin runs again after a webhook changed the pod.
    assert [mount["mountPath"] for mount in extra["volumeMounts"]] == [MOUNT]
    request = hook.requests[-1]
    assert request["operation"] == "CREATE"
    assert (request["namespace"], request["name"]) == (namespace, "a")
    assert request["resource"] == {"group": "", "version": "v1", "resource": "pods"}
    assert request["dryRun"] is True
    assert request["oldObject"] is None
    assert request["userInfo"]["username"] == "admin"
    assert request["object"]["metadata"]["namespace"] == namespace
    assert request["object"]["spec"]["serviceAccountName"] == "default"
    assert request["options"]["kind"] == "CreateOptions"


def test_a_generated_name_is_not_known_to_webhooks_yet(rest: Rest, pods: str, register: Register) -> None:
    hook = register(allow)
    body = pod()
    body["metadata"] = {"generateName": "some-"}
    create(rest, pods, body, lambda _answer: bool(hook.requests))
    assert hook.requests[-1].get("name", "") == ""
    assert "name" not in hook.requests[-1]["object"]["metadata"]
    assert hook.requests[-1]["object"]["metadata"]["generateName"] == "some-"


def test_a_denial_carries_the_webhooks_message_and_code(rest: Rest, pods: str, register: Register) -> None:
    register(lambda _request: {"allowed": False, "status": {"code": 403, "message": "not this one"}})
    answer = create(rest, pods, pod("a"), lambda answer: answer.status != 201)
    assert answer.status == 403
    assert answer.body["message"].startswith('admission webhook "hook-')
    assert answer.body["message"].endswith('.example.org" denied the request: not this one')


def test_warnings_become_headers(rest: Rest, pods: str, register: Register) -> None:
    register(lambda _request: {"allowed": True, "warnings": ["mind the gap"]})
    answer = create(rest, pods, pod("a"), lambda answer: "Warning" in answer.headers)
    assert answer.headers["Warning"] == '299 - "mind the gap"'


def test_selectors_and_conditions_choose_the_pods(rest: Rest, pods: str, register: Register) -> None:
    register(patching(ADD_CONTAINER), objectSelector={"matchExpressions": [{"key": "join", "operator": "Exists"}]})
    condition = {"name": "named", "expression": "object.metadata.name == 'picked'"}
    rename = {"op": "replace", "path": "/spec/containers/0/image", "value": "example/picked:1"}
    register(patching(rename), matchConditions=[condition])
    labelled = pod("a")
    labelled["metadata"]["labels"]["join"] = "yes"
    create(rest, pods, labelled, lambda answer: "extra" in names(answer))
    picked = create(
        rest, pods, pod("picked"), lambda answer: answer.body["spec"]["containers"][0]["image"] == "example/picked:1"
    )
    assert names(picked) == ["main"]
    assert rest.post(f"{pods}?dryRun=All", pod("other")).body["spec"]["containers"][0]["image"] == "example/app:1"


def test_an_unreachable_webhook_fails_or_is_ignored(rest: Rest, pods: str, register: Register) -> None:
    nowhere = {"url": "https://127.0.0.1:1/mutate"}
    register(allow, client=nowhere)
    answer = create(rest, pods, pod("a"), lambda answer: answer.status != 201)
    assert (answer.status, answer.body["reason"]) == (500, "InternalError")
    assert "failed calling webhook" in answer.body["message"]


def test_an_ignored_failure_lets_the_pod_pass(rest: Rest, pods: str, register: Register) -> None:
    register(allow, client={"url": "https://127.0.0.1:1/mutate"}, failurePolicy="Ignore")
    marker = register(patching(ADD_CONTAINER))
    create(rest, pods, pod("a"), lambda answer: "extra" in names(answer))
    assert marker.requests


def test_an_answer_for_another_request_is_a_failure(rest: Rest, pods: str, register: Register) -> None:
    register(lambda _request: {"uid": "other", "allowed": True})
    answer = create(rest, pods, pod("a"), lambda answer: answer.status != 201)
    assert answer.status == 500
    assert "response.uid" in answer.body["message"]


def test_a_certificate_of_another_authority_is_a_failure(rest: Rest, pods: str, register: Register) -> None:
    probe = register(allow)
    untrusted = {"url": probe.by_url()["url"]}
    register(allow, client=untrusted)
    answer = create(rest, pods, pod("a"), lambda answer: answer.status != 201)
    assert "certificate" in answer.body["message"]


def test_a_webhook_is_asked_again_when_a_later_one_changed_the_pod(rest: Rest, pods: str, register: Register) -> None:
    first = register(allow, reinvocationPolicy="IfNeeded")
    register(patching(ADD_CONTAINER))
    create(rest, pods, pod("a"), lambda answer: "extra" in names(answer))
    asked = [request for request in first.requests if len(request["object"]["spec"]["containers"]) == 2]
    assert asked


def test_a_webhook_that_wants_no_second_look_is_asked_once(rest: Rest, pods: str, register: Register) -> None:
    first = register(allow)
    register(patching(ADD_CONTAINER))
    create(rest, pods, pod("a"), lambda answer: "extra" in names(answer))
    assert all(len(request["object"]["spec"]["containers"]) == 1 for request in first.requests)


def test_validating_webhooks_see_the_final_pod(rest: Rest, pods: str, register: Register) -> None:
    validating = register(allow, "Validating")
    register(patching(ADD_CONTAINER))
    create(rest, pods, pod("a"), lambda answer: "extra" in names(answer) and bool(validating.requests))
    eventually(lambda: bool(rest.post(f"{pods}?dryRun=All", pod("a"))) and _containers(validating.requests[-1]) == 2)


def _containers(request: Json) -> int:
    return len(request["object"]["spec"]["containers"])


def test_a_patch_that_does_not_apply_is_a_failure(rest: Rest, pods: str, register: Register) -> None:
    register(patching({"op": "replace", "path": "/spec/none/0", "value": 1}))
    answer = create(rest, pods, pod("a"), lambda answer: answer.status != 201)
    assert answer.status == 500


def test_connections_to_a_webhook_are_reused(rest: Rest, pods: str, register: Register) -> None:
    hook = register(allow)
    create(rest, pods, pod("a"), lambda _answer: len(hook.requests) >= 5)
    assert len(hook.ports) == 1


def test_a_webhook_is_reached_through_its_service(rest: Rest, pods: str, register: Register, local_only: None) -> None:
    probe = register(patching(ADD_CONTAINER), failurePolicy="Ignore", objectSelector={"matchLabels": {"never": "x"}})
    rest.post("/api/v1/namespaces", {"metadata": {"name": "hooks"}})
    service = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}
    rest.create("/api/v1/namespaces/hooks/services", service)
    subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": probe.port}]}
    rest.create("/api/v1/namespaces/hooks/endpoints", {"metadata": {"name": "hook"}, "subsets": [subset]})
    bundle = probe.by_url()["caBundle"]
    client = {"service": {"namespace": "hooks", "name": "hook", "path": "/mutate"}, "caBundle": bundle}
    register(allow, client=client)
    assert "extra" in names(create(rest, pods, pod("a"), lambda answer: answer.status == 201))
