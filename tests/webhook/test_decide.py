"""What the webhook decides about pods: tables of pods, reasons and what the sentence must name."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from edgefarm import names
from tests.webhook.conftest import SETTINGS, Json, decision_on, injected, make_pod
from webhook.annotations import Mode
from webhook.decide import Deny, Inject, Reason, Skip, app_id


def labelled(value: str) -> Json:
    pod = make_pod()
    pod["metadata"]["labels"][names.LABEL_NETWORK] = value
    return pod


def container(**members: Any) -> Json:
    return {"name": "app", "image": "example/app:1"} | members


def unlabelled() -> Json:
    pod = make_pod()
    del pod["metadata"]["labels"]
    return pod


@pytest.mark.parametrize(
    ("pod", "namespace", "reason"),
    [
        (unlabelled(), "team-a", Reason.NOT_LABELLED),
        (make_pod() | {"metadata": {"labels": {"network.edgefarm.io/name": "foo"}}}, "team-a", Reason.NOT_LABELLED),
        (make_pod(), "kube-system", Reason.EXCLUDED_NAMESPACE),
        (make_pod(), "network", Reason.EXCLUDED_NAMESPACE),
        (make_pod({names.ANNOTATION_INJECT: "false"}), "team-a", Reason.OPTED_OUT),
        # Who opts out is left alone, whatever else is wrong.
        (make_pod({names.ANNOTATION_INJECT: "false"}, os={"name": "windows"}), "team-a", Reason.OPTED_OUT),
        (make_pod({names.ANNOTATION_INJECT: "false", names.ANNOTATION_MODE: "x"}), "team-a", Reason.OPTED_OUT),
        # Nothing can be denied to a mirror pod: the static pod runs already.
        (make_pod({"kubernetes.io/config.mirror": "abc", names.ANNOTATION_MODE: "x"}), "team-a", Reason.MIRROR_POD),
    ],
)
def test_a_pod_is_skipped(pod: Json, namespace: str, reason: Reason) -> None:
    decision = decision_on(pod, namespace)
    assert isinstance(decision, Skip)
    assert decision.reason is reason
    assert decision.sentence


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (names.ANNOTATION_INJECT, "no"),
        (names.ANNOTATION_INJECT, ""),
        (names.ANNOTATION_MODE, "Dapr"),
        (names.ANNOTATION_MODE, ""),
        (names.ANNOTATION_MODE, "x" * 100_000),
        (names.ANNOTATION_PERSIST, "ssd"),
        (names.ANNOTATION_DAPR_APP_ID, "my.app"),
        (names.ANNOTATION_DAPR_APP_ID, ""),
        (names.ANNOTATION_DAPR_APP_ID, "a" * 64),
        (names.ANNOTATION_DAPR_APP_ID, "größe"),
        (names.ANNOTATION_DAPR_APP_PORT, "http"),
        (names.ANNOTATION_DAPR_APP_PORT, "0"),
        (names.ANNOTATION_DAPR_APP_PORT, "65536"),
        (names.ANNOTATION_DAPR_APP_PORT, "-1"),
        (names.ANNOTATION_DAPR_APP_PORT, "８０"),  # noqa: RUF001 - digits that int() would accept
        (names.ANNOTATION_DAPR_APP_PORT, "9" * 10_000),
        (names.ANNOTATION_DAPR_APP_PROTOCOL, "udp"),
        (names.ANNOTATION_DAPR_LOG_LEVEL, "loud"),
    ],
)
def test_a_wrong_annotation_is_denied_with_a_short_sentence_that_names_it(annotation: str, value: str) -> None:
    decision = decision_on(make_pod({annotation: value}))
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.INVALID_ANNOTATION
    assert annotation in decision.sentence
    assert "write" in decision.sentence
    assert len(decision.sentence) < 300


@pytest.mark.parametrize(
    ("pod", "reason", "named"),
    [
        (labelled(""), Reason.INVALID_NETWORK, names.LABEL_NETWORK),
        (labelled("Foo"), Reason.INVALID_NETWORK, "'Foo'"),
        (labelled("foo.bar"), Reason.INVALID_NETWORK, "'foo.bar'"),
        (make_pod(serviceAccountName="a.b"), Reason.INVALID_SERVICE_ACCOUNT, "'a.b'"),
        (make_pod(os={"name": "windows"}), Reason.WINDOWS, "Linux"),
        (make_pod(nodeSelector={"kubernetes.io/os": "windows"}), Reason.WINDOWS, "Linux"),
        (make_pod(hostNetwork=True), Reason.HOST_NETWORK, names.ANNOTATION_MODE),
        (make_pod(containers=[{"name": names.SIDECAR_CONTAINER}]), Reason.NAME_TAKEN, names.SIDECAR_CONTAINER),
        (make_pod(initContainers=[{"name": names.SIDECAR_CONTAINER}]), Reason.NAME_TAKEN, names.SIDECAR_CONTAINER),
        (make_pod(volumes=[{"name": names.VOLUME_TOKEN, "emptyDir": {}}]), Reason.NAME_TAKEN, names.VOLUME_TOKEN),
        (make_pod(containers=[container(ports=[{"containerPort": 3580}])]), Reason.PORT_TAKEN, "3580"),
        (make_pod(containers=[container(ports=[{"containerPort": 3500}])]), Reason.PORT_TAKEN, "3500"),
        (make_pod(initContainers=[container(ports=[{"containerPort": 50001}])]), Reason.PORT_TAKEN, "50001"),
        (make_pod({names.ANNOTATION_DAPR_APP_PORT: "3500"}), Reason.PORT_TAKEN, "3500"),
        (
            make_pod(mode=Mode.NATS, containers=[container(ports=[{"containerPort": 4222}])]),
            Reason.PORT_TAKEN,
            "nats-port",
        ),
        (make_pod({names.ANNOTATION_PORT: "4222"}, mode=Mode.NATS), Reason.PORT_TAKEN, "the NATS relay listens there"),
        (
            make_pod(
                mode=Mode.NATS,
                containers=[container(volumeMounts=[{"name": "mine", "mountPath": "/var/run/edgefarm/credentials/"}])],
            ),
            Reason.PATH_TAKEN,
            "/var/run/edgefarm/credentials",
        ),
    ],
)
def test_a_pod_that_the_sidecar_cannot_join_is_denied(pod: Json, reason: Reason, named: str) -> None:
    decision = decision_on(pod)
    assert isinstance(decision, Deny)
    assert decision.reason is reason
    assert named in decision.sentence


@pytest.mark.parametrize(
    "pod",
    [
        make_pod(),
        make_pod({names.ANNOTATION_INJECT: "true"}),
        make_pod(mode=Mode.NATS, hostNetwork=True),
        make_pod(mode=Mode.NATS, containers=[container(ports=[{"containerPort": 3500}])]),
        make_pod(containers=[container(ports=[{"containerPort": 4222}])]),
        make_pod(
            {names.ANNOTATION_NATS_RELAY: "false"},
            mode=Mode.NATS,
            containers=[container(ports=[{"containerPort": 4222}])],
        ),
        make_pod(containers=[container(ports=[{"containerPort": 3500, "protocol": "UDP"}])]),
        make_pod(os={"name": "linux"}, nodeSelector={"kubernetes.io/os": "linux"}),
        make_pod(volumes=None, initContainers=None, securityContext=None, nodeSelector=None),
        make_pod(serviceAccountName=""),
        make_pod({names.ANNOTATION_STATUS: "copied from a pod, without its sidecar"}),
    ],
)
def test_an_ordinary_pod_is_injected(pod: Json) -> None:
    assert isinstance(decision_on(pod), Inject)


def test_the_plan_holds_what_the_pod_says() -> None:
    pod = make_pod({names.ANNOTATION_DAPR_APP_ID: "sensors", names.ANNOTATION_DAPR_APP_PORT: "8080"})
    decision = decision_on(pod)
    assert isinstance(decision, Inject)
    plan = decision.plan
    assert (plan.network, plan.namespace, plan.service_account) == ("foo", "team-a", "sensor")
    assert (plan.app_id, plan.options.app_port, plan.options.mode) == ("sensors", 8080, Mode.DAPR)


def test_a_pod_without_service_account_uses_the_default_one() -> None:
    pod = make_pod()
    del pod["spec"]["serviceAccountName"]
    decision = decision_on(pod)
    assert isinstance(decision, Inject)
    assert decision.plan.service_account == "default"


def test_the_controller_namespace_is_the_one_of_the_settings() -> None:
    settings = replace(SETTINGS, excluded_namespaces=frozenset({"kube-system", "edge-controllers"}))
    assert isinstance(decision_on(make_pod(), "edge-controllers", settings), Skip)
    assert isinstance(decision_on(make_pod(), "network", settings), Inject)


@pytest.mark.parametrize("status", ["", "[]", "null", "{}", "[" * 5000, '{"network": "foo", "mode": "nats"}'])
def test_a_sidecar_that_was_injected_for_something_else_is_denied(status: str) -> None:
    pod = injected(make_pod())
    pod["metadata"]["annotations"][names.ANNOTATION_STATUS] = status
    decision = decision_on(pod)
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.OTHER_INJECTION


def test_a_label_changed_after_the_injection_is_denied() -> None:
    pod = injected(make_pod())
    assert json.loads(pod["metadata"]["annotations"][names.ANNOTATION_STATUS])["network"] == "foo"
    pod["metadata"]["labels"][names.LABEL_NETWORK] = "bar"
    assert isinstance(decision_on(pod), Deny)


def test_a_misspelt_annotation_gives_a_short_warning() -> None:
    decision = decision_on(make_pod({f"{names.PREFIX}sidecar-mod{'e' * 200}": "nats"}))
    assert isinstance(decision, Inject)
    [warning] = decision.warnings
    assert "network.edgefarm.io/sidecar-mod" in warning
    assert len(warning) < 120


@pytest.mark.parametrize(
    ("mode", "native", "restart", "warned"),
    [
        (Mode.DAPR, False, "Never", True),
        (Mode.DAPR, False, "OnFailure", True),
        (Mode.DAPR, False, "Always", False),
        (Mode.DAPR, True, "Never", False),
        (Mode.NATS, False, "Never", False),
    ],
)
def test_a_job_that_must_end_its_sidecar_itself_gives_a_warning(
    mode: Mode, native: bool, restart: str, warned: bool
) -> None:
    decision = decision_on(make_pod(mode=mode, restartPolicy=restart), settings=replace(SETTINGS, native=native))
    assert isinstance(decision, Inject)
    assert any("/v1.0/shutdown" in warning for warning in decision.warnings) is warned


def _owned(kind: str, owner: str, **metadata: Any) -> Json:
    reference = {"kind": kind, "name": owner, "controller": True}
    return {"metadata": {"generateName": f"{owner}-", "ownerReferences": [reference]} | metadata, "spec": {}}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (make_pod(), "publisher"),
        (_owned("ReplicaSet", "lonely"), "lonely"),
        (_owned("StatefulSet", "store", name="store-0"), "store"),
        (_owned("DaemonSet", "collector"), "collector"),
        (_owned("Job", "import"), "import"),
        # Every run of a CronJob has a Job of its own.
        (_owned("Job", "backup-29012345"), "backup"),
        (_owned("Job", "backup-2901234"), "backup-2901234"),
        ({"metadata": {"name": "bare"}, "spec": {}}, "bare"),
        ({"metadata": {"name": "bare.with.dots"}, "spec": {}}, "bare-with-dots"),
        ({"metadata": {"generateName": "made-"}, "spec": {}}, "made"),
        ({"metadata": {"name": "a" * 62 + ".b"}, "spec": {}}, "a" * 62),
        ({"metadata": {"generateName": "ж"}, "spec": {}}, "app"),
        ({"metadata": {}, "spec": {}}, "app"),
        ({"spec": {}}, "app"),
    ],
)
def test_the_default_app_id_is_that_of_the_workload_and_a_dns_label(pod: Any, expected: str) -> None:
    assert app_id(pod) == expected
    assert names.check_label(app_id(pod), "app id")
