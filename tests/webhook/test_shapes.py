"""Every shape of pod, in both modes, with and without native sidecars: the patched pod is right."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import jsonpatch
import pytest

from edgefarm import names
from tests.webhook.conftest import SETTINGS, decision_on, make_review, operations_for
from tests.webhook.pod_checks import check_injection, check_valid, pod_schemas
from tests.webhook.pod_security import violations
from tests.webhook.shapes import ONLY_NATS, SHAPES, container, pod
from webhook import review
from webhook.annotations import Mode
from webhook.decide import Deny, Reason, Skip
from webhook.settings import Injection

Json = dict[str, Any]
CLASSIC = replace(SETTINGS, native=False)


def shaped(title: str, mode: Mode) -> Json:
    """The shape in a mode."""
    made = copy.deepcopy(SHAPES[title])
    made["metadata"]["annotations"] = {**(made["metadata"].get("annotations") or {}), names.ANNOTATION_MODE: mode}
    return made


def test_there_are_schemas_of_three_versions() -> None:
    assert len(pod_schemas()) == 3
    with pytest.raises(AssertionError, match="Kubernetes v1"):
        check_valid(pod(container(restartpolicy="Always")))


@pytest.mark.parametrize("settings", [SETTINGS, CLASSIC], ids=["native", "classic"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("title", SHAPES)
def test_a_pod_of_this_shape_is_injected_right(title: str, mode: Mode, settings: Injection) -> None:
    made = shaped(title, mode)
    check_valid(made)
    if title in ONLY_NATS and mode is Mode.DAPR:
        assert isinstance(decision_on(made, "team-a", settings), Deny)
        return
    check_injection(made, settings)


@pytest.mark.parametrize("title", SHAPES)
def test_a_pod_of_this_shape_without_the_label_is_left_alone(title: str) -> None:
    made = shaped(title, Mode.NATS)
    del made["metadata"]["labels"][names.LABEL_NETWORK]
    answer = review.answer(review.read(json.dumps(make_review(made)).encode(), "application/json"), SETTINGS)
    assert isinstance(answer.decision, Skip)
    assert "patch" not in json.loads(answer.body)["response"]


def test_some_shapes_are_restricted_and_stay_so() -> None:
    restricted = [title for title in SHAPES if not violations(SHAPES[title])]
    assert {title for title in SHAPES if title.startswith("restricted")} <= set(restricted)


@pytest.mark.parametrize(
    "wrong",
    [
        pod(hostNetwork=True),
        pod(container(securityContext={"privileged": True})),
        pod(volumes=[{"name": "x", "hostPath": {"path": "/"}}]),
        pod(container(ports=[{"containerPort": 1, "hostPort": 1}])),
    ],
)
def test_the_check_of_the_restricted_standard_sees_what_is_wrong(wrong: Json) -> None:
    assert len(violations(wrong)) > len(violations(pod()))


def _init_names(made: Json) -> list[str]:
    return [item["name"] for item in made["spec"]["initContainers"]]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Istio's ordinary proxy", [names.SIDECAR_CONTAINER, "istio-init", "migrate"]),
        ("Istio's native proxy", ["istio-validation", "istio-proxy", names.SIDECAR_CONTAINER, "migrate"]),
        (
            "Linkerd's native proxy at the end",
            [names.SIDECAR_CONTAINER, "migrate", "linkerd-init", "linkerd-proxy"],
        ),
        ("native sidecars of others around an init container", [names.SIDECAR_CONTAINER, "logs", "migrate", "proxy"]),
    ],
)
def test_the_sidecar_stands_where_it_can_reach_vault_and_before_the_users_containers(
    title: str, expected: list[str]
) -> None:
    assert _init_names(check_injection(shaped(title, Mode.NATS), SETTINGS)) == expected


def test_a_mesh_that_comes_after_us_is_let_before_us_in_the_second_round() -> None:
    first = check_injection(shaped("one init container", Mode.NATS), SETTINGS)
    mesh = [container("istio-validation"), container("istio-proxy", restartPolicy="Always")]
    first["spec"]["initContainers"][1:1] = mesh
    second = jsonpatch.apply_patch(first, operations_for(first))
    assert _init_names(second) == ["istio-validation", "istio-proxy", names.SIDECAR_CONTAINER, "migrate"]
    assert operations_for(second) == []


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (pod(container(names.INIT_CONTAINER)), Reason.NAME_TAKEN),
        (pod(initContainers=[container(names.SIDECAR_CONTAINER, restartPolicy="Always")]), Reason.NAME_TAKEN),
        (pod(volumes=[{"name": names.VOLUME_DAPR_CONFIG, "emptyDir": {}}]), Reason.NAME_TAKEN),
        (pod(container(ports=[{"containerPort": 9000, "name": "network-health"}])), Reason.PORT_TAKEN),
        (pod(metadata={"annotations": {names.ANNOTATION_PORT: "3500"}}), Reason.PORT_TAKEN),
        (pod(container("daprd")), Reason.OTHER_DAPR),
        (pod(initContainers=[container("daprd", restartPolicy="Always")]), Reason.OTHER_DAPR),
        (pod(metadata={"annotations": {"dapr.io/enabled": "True"}}), Reason.OTHER_DAPR),
        (pod(securityContext={"windowsOptions": {"hostProcess": True}}), Reason.WINDOWS),
    ],
)
def test_a_pod_that_is_in_our_way_is_denied_with_a_sentence(made: Json, reason: Reason) -> None:
    check_valid(made)
    decision = decision_on(made)
    assert isinstance(decision, Deny)
    assert decision.reason is reason
    assert decision.sentence


@pytest.mark.parametrize(
    "path",
    [
        "/var/run/edgefarm/credentials",
        "/var/run/edgefarm/credentials/",
        "/var/run//edgefarm/./credentials",
        "//var/run/edgefarm/x/../credentials",
        "/run/edgefarm/credentials",
    ],
)
@pytest.mark.parametrize("kind", ["volumeMounts", "volumeDevices"])
def test_our_mount_path_is_ours_however_it_is_written(path: str, kind: str) -> None:
    item = {"name": "data", "mountPath" if kind == "volumeMounts" else "devicePath": path}
    made = pod({**container(), kind: [item]}, metadata={"annotations": {names.ANNOTATION_MODE: "nats"}})
    decision = decision_on(made)
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.PATH_TAKEN
    made["metadata"]["annotations"][names.ANNOTATION_MODE] = "dapr"
    assert not isinstance(decision_on(made), Deny)


def test_dapr_of_others_does_not_disturb_mode_nats() -> None:
    made = pod(container(), container("daprd", ports=[{"containerPort": 3500}]))
    made["metadata"]["annotations"] = {names.ANNOTATION_MODE: "nats", "dapr.io/enabled": "true"}
    check_injection(made, SETTINGS)


def test_a_taken_port_can_be_avoided_with_the_annotation_that_the_sentence_names() -> None:
    made = pod(container(ports=[{"containerPort": 3580}]))
    decision = decision_on(made)
    assert isinstance(decision, Deny)
    assert names.ANNOTATION_PORT in decision.sentence
    made["metadata"]["annotations"] = {names.ANNOTATION_PORT: "3581"}
    check_injection(made, SETTINGS)


def test_a_container_may_mount_the_credentials_at_a_second_path() -> None:
    mount = {"name": names.VOLUME_CREDENTIALS, "mountPath": "/creds", "readOnly": True}
    made = pod(container(volumeMounts=[mount]), metadata={"annotations": {names.ANNOTATION_MODE: "nats"}})
    mounts = check_injection(made, SETTINGS)["spec"]["containers"][0]["volumeMounts"]
    assert [item["mountPath"] for item in mounts] == ["/creds", "/var/run/edgefarm/credentials"]


@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "binding", "eviction", "status"])
def test_a_subresource_of_a_pod_is_left_alone(subresource: str) -> None:
    body = json.dumps(make_review(pod(), subResource=subresource, operation="UPDATE")).encode()
    answer = review.answer(review.read(body, "application/json"), SETTINGS)
    assert isinstance(answer.decision, Skip)
    assert answer.decision.reason is Reason.NOT_FOR_US


def test_a_dry_run_gets_the_answer_of_a_real_one() -> None:
    bodies = []
    for dry_run in (False, True):
        body = json.dumps(make_review(pod(), dryRun=dry_run)).encode()
        bodies.append(review.answer(review.read(body, "application/json"), SETTINGS).body)
    assert bodies[0] == bodies[1]
