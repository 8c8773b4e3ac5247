"""The table of annotations: what each does to the pod, what is refused, and what is warned about."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from tests.webhook.conftest import Json, decision_on, env_of, injected, make_pod, operations_for, sidecar_of
from webhook.annotations import TABLE, Mode, Options, warnings
from webhook.decide import Deny, Inject, Reason
from webhook.template import CREDENTIALS_DIR

_DOCUMENT = (Path(__file__).parents[2] / "docs" / "injection.md").read_text()


def resources_of(notes: dict[str, str], mode: Mode = Mode.NATS, **spec: Any) -> Json:
    found: Json = sidecar_of(injected(make_pod(notes, mode=mode, **spec)))["resources"]
    return found


def test_every_annotation_is_documented_and_fills_a_member_of_the_options() -> None:
    members = {member.name for member in fields(Options)}
    for name, (target, _) in TABLE.items():
        assert f"`{name.removeprefix(names.PREFIX)}`" in _DOCUMENT, name
        assert not isinstance(target, str) or target in members


@pytest.mark.parametrize(
    ("annotation", "value", "variable"),
    [
        (names.ANNOTATION_POLICY, "sensor", "EDGEFARM_POLICY"),
        (names.ANNOTATION_PORT, "9000", "EDGEFARM_HEALTH_PORT"),
        (names.ANNOTATION_DAPR_APP_ID, "publisher-1", "EDGEFARM_DAPR_APP_ID"),
        (names.ANNOTATION_DAPR_APP_PORT, "65535", "EDGEFARM_DAPR_APP_PORT"),
        (names.ANNOTATION_DAPR_APP_PROTOCOL, "grpcs", "EDGEFARM_DAPR_APP_PROTOCOL"),
        (names.ANNOTATION_DAPR_APP_MAX_CONCURRENCY, "4", "EDGEFARM_DAPR_APP_MAX_CONCURRENCY"),
        (names.ANNOTATION_DAPR_API_LOGGING, "true", "EDGEFARM_DAPR_API_LOGGING"),
        (names.ANNOTATION_DAPR_LOG_LEVEL, "debug", "EDGEFARM_DAPR_LOG_LEVEL"),
        (names.ANNOTATION_DAPR_MAX_BODY_SIZE, "16Mi", "EDGEFARM_DAPR_MAX_BODY_SIZE"),
        (names.ANNOTATION_DAPR_SHUTDOWN_SECONDS, "30", "EDGEFARM_DAPR_SHUTDOWN_SECONDS"),
    ],
)
def test_the_sidecar_is_told_what_an_annotation_asks(annotation: str, value: str, variable: str) -> None:
    assert env_of(sidecar_of(injected(make_pod({annotation: value}))))[variable] == value
    assert env_of(sidecar_of(injected(make_pod()))).get(variable) != value


def test_the_port_of_the_relay_moves_with_the_url_of_the_application() -> None:
    patched = injected(make_pod({names.ANNOTATION_NATS_PORT: "14222"}, mode=Mode.NATS))
    assert env_of(sidecar_of(patched))["EDGEFARM_NATS_PORT"] == "14222"
    assert env_of(patched["spec"]["containers"][0])["NATS_URL"] == "nats://127.0.0.1:14222"


def test_an_application_that_wants_no_relay_gets_the_hub_and_its_authority() -> None:
    patched = injected(make_pod({names.ANNOTATION_NATS_RELAY: "false"}, mode=Mode.NATS))
    assert "EDGEFARM_NATS_PORT" not in env_of(sidecar_of(patched))
    env = env_of(patched["spec"]["containers"][0])
    assert (env["NATS_URL"], env["NATS_CA"]) == ("tls://nats.example:4222", f"{CREDENTIALS_DIR}/ca.crt")


def test_another_image_of_the_sidecar_can_be_asked_for() -> None:
    image = "registry.example:5000/edgefarm/network@sha256:" + "0" * 64
    assert sidecar_of(injected(make_pod({names.ANNOTATION_IMAGE: image})))["image"] == image


def test_the_port_of_the_sidecar_moves_with_its_probe() -> None:
    sidecar = sidecar_of(injected(make_pod({names.ANNOTATION_PORT: "9000"}, mode=Mode.NATS, hostNetwork=True)))
    port = sidecar["ports"][0]
    assert (port["containerPort"], port["hostPort"]) == (9000, 9000)
    assert sidecar["startupProbe"]["httpGet"]["port"] == port["name"]


def test_a_dapr_configuration_comes_from_a_config_map_that_only_the_sidecar_mounts() -> None:
    patched = injected(make_pod({names.ANNOTATION_DAPR_CONFIG: "tracing"}))
    [volume] = [volume for volume in patched["spec"]["volumes"] if volume["name"] == names.VOLUME_DAPR_CONFIG]
    assert volume["configMap"]["name"] == "tracing"
    assert volume["configMap"]["items"] == [{"key": "config.yaml", "path": "config.yaml"}]
    sidecar = sidecar_of(patched)
    assert env_of(sidecar)["EDGEFARM_DAPR_CONFIG"] == "/etc/edgefarm/dapr/config.yaml"
    assert {"name": names.VOLUME_DAPR_CONFIG, "mountPath": "/etc/edgefarm/dapr", "readOnly": True} in sidecar[
        "volumeMounts"
    ]
    assert "volumeMounts" not in patched["spec"]["containers"][0]
    assert operations_for(patched) == []


@pytest.mark.parametrize(
    ("notes", "requests", "limits"),
    [
        ({}, ("10m", "32Mi"), ("1", "96Mi")),
        ({names.ANNOTATION_CPU_REQUEST: "50m"}, ("50m", "32Mi"), ("1", "96Mi")),
        # One that is given moves the other, which is ours, out of its way.
        ({names.ANNOTATION_CPU_REQUEST: "1.5"}, ("1.5", "32Mi"), ("1.5", "96Mi")),
        ({names.ANNOTATION_MEMORY_LIMIT: "24Mi"}, ("10m", "24Mi"), ("1", "24Mi")),
        ({names.ANNOTATION_MEMORY_REQUEST: "1Gi"}, ("10m", "1Gi"), ("1", "1Gi")),
        (
            {names.ANNOTATION_CPU_LIMIT: "2", names.ANNOTATION_CPU_REQUEST: "1500m"},
            ("1500m", "32Mi"),
            ("2", "96Mi"),
        ),
    ],
)
def test_the_sizes_of_the_sidecar_can_be_asked_for_one_by_one(
    notes: dict[str, str], requests: tuple[str, str], limits: tuple[str, str]
) -> None:
    found = resources_of(notes)
    assert (found["requests"]["cpu"], found["requests"]["memory"]) == requests
    assert (found["limits"]["cpu"], found["limits"]["memory"]) == limits


def test_what_the_pod_limits_as_a_whole_is_left_to_it() -> None:
    whole = {"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}}
    assert resources_of({}, resources=whole) == {"requests": {"memory": "32Mi"}, "limits": {"memory": "96Mi"}}
    both = {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert resources_of({}, resources=both) == {}
    asked = resources_of({names.ANNOTATION_CPU_LIMIT: "100m"}, resources=both)
    assert asked == {"requests": {"cpu": "10m"}, "limits": {"cpu": "100m"}}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (names.ANNOTATION_IMAGE, ""),
        (names.ANNOTATION_IMAGE, "my image"),
        (names.ANNOTATION_IMAGE, "-x"),
        (names.ANNOTATION_IMAGE, "a" * 513),
        (names.ANNOTATION_IMAGE, "registry/ïmage"),
        (names.ANNOTATION_PORT, "80"),
        (names.ANNOTATION_PORT, "70000"),
        (names.ANNOTATION_CPU_REQUEST, "0"),
        (names.ANNOTATION_CPU_REQUEST, "0m"),
        (names.ANNOTATION_CPU_REQUEST, "1.5m"),
        (names.ANNOTATION_CPU_LIMIT, "-1"),
        (names.ANNOTATION_CPU_LIMIT, "1Gi"),
        (names.ANNOTATION_CPU_LIMIT, "1" * 100),
        (names.ANNOTATION_CPU_LIMIT, "٣"),
        (names.ANNOTATION_MEMORY_REQUEST, "64"),
        (names.ANNOTATION_MEMORY_REQUEST, "64m"),
        (names.ANNOTATION_MEMORY_REQUEST, "64 Mi"),
        (names.ANNOTATION_MEMORY_LIMIT, "lots"),
        (names.ANNOTATION_MEMORY_LIMIT, "1e999999999"),
        (names.ANNOTATION_MEMORY_LIMIT, "9" * 1000 + "Gi"),
        (names.ANNOTATION_POLICY, "a.b"),
        (names.ANNOTATION_POLICY, ""),
        (names.ANNOTATION_DAPR_CONFIG, "/etc/config.yaml"),
        (names.ANNOTATION_DAPR_CONFIG, "Tracing"),
        (names.ANNOTATION_DAPR_CONFIG, "a" * 254),
        (names.ANNOTATION_DAPR_API_LOGGING, "yes"),
        (names.ANNOTATION_DAPR_APP_MAX_CONCURRENCY, "0"),
        (names.ANNOTATION_DAPR_MAX_BODY_SIZE, "16"),
        (names.ANNOTATION_DAPR_MAX_BODY_SIZE, "4Gi"),
        (names.ANNOTATION_DAPR_MAX_BODY_SIZE, "all"),
        (names.ANNOTATION_DAPR_SHUTDOWN_SECONDS, "0"),
        (names.ANNOTATION_DAPR_SHUTDOWN_SECONDS, "5s"),
        (names.ANNOTATION_DAPR_LOG_LEVEL, "\x00\u202e"),
    ],
)
def test_a_wrong_value_is_denied_with_a_sentence_that_names_the_annotation(annotation: str, value: str) -> None:
    decision = decision_on(make_pod({annotation: value}))
    assert isinstance(decision, Deny)
    assert decision.reason is Reason.INVALID_ANNOTATION
    assert decision.sentence.startswith(f"annotation {annotation} is ")
    assert ": write " in decision.sentence
    assert len(decision.sentence) < 300
    assert decision.sentence.isprintable()


@pytest.mark.parametrize(("name", "more", "less"), [("cpu", "2", "100m"), ("memory", "2Gi", "100M")])
def test_a_request_above_its_limit_is_denied_naming_both(name: str, more: str, less: str) -> None:
    request, limit = f"{names.PREFIX}sidecar-{name}-request", f"{names.PREFIX}sidecar-{name}-limit"
    decision = decision_on(make_pod({request: more, limit: less}))
    assert isinstance(decision, Deny)
    assert request in decision.sentence
    assert limit in decision.sentence


@pytest.mark.parametrize(
    ("notes", "mode", "says"),
    [
        ({f"{names.PREFIX}sidecar-mod": "nats"}, Mode.DAPR, "did you mean sidecar-mode?"),
        ({f"{names.PREFIX}zzz": "nats"}, Mode.DAPR, "zzz is unknown and ignored"),
        ({f"{names.PREFIX}{'ü' * 300}": ""}, Mode.DAPR, "is unknown and ignored"),
        ({f"{names.PREFIX}\n\x00": ""}, Mode.DAPR, "is unknown and ignored"),
        ({f"{names.PREFIX}dapr-graceful-shutdown-second": "5"}, Mode.DAPR, "dapr-graceful-shutdown-seconds?"),
        ({names.ANNOTATION_ROTATE_KEYS_AT: "x"}, Mode.DAPR, "belongs on a Policy"),
        ({names.ANNOTATION_REVOKE_KEYS_BEFORE: "x"}, Mode.NATS, "belongs on a Policy"),
        ({names.ANNOTATION_DAPR_SHUTDOWN_SECONDS: "5"}, Mode.NATS, "has no effect in mode nats"),
        ({"dapr.io/app-port": "80"}, Mode.DAPR, f"write {names.ANNOTATION_DAPR_APP_PORT}"),
        ({"dapr.io/graceful-shutdown-seconds": "80"}, Mode.DAPR, f"write {names.ANNOTATION_DAPR_SHUTDOWN_SECONDS}"),
    ],
)
def test_an_annotation_without_effect_gives_one_short_warning(notes: dict[str, str], mode: Mode, says: str) -> None:
    decision = decision_on(make_pod(notes, mode=mode))
    assert isinstance(decision, Inject)
    [warning] = decision.warnings
    assert says in warning
    assert len(warning) < 120
    assert warning.isprintable()


def test_every_warning_that_the_table_can_give_is_short() -> None:
    notes = {f"dapr.io/{name.removeprefix(f'{names.PREFIX}dapr-')}": "" for name in TABLE}
    notes |= {f"{name}x": "" for name in TABLE}
    given = [
        *warnings(notes, Mode.DAPR),
        *warnings(dict.fromkeys(TABLE, ""), Mode.NATS),
    ]
    assert len(given) > len(TABLE)
    assert max(map(len, given)) < 120


def test_what_is_not_ours_or_ours_and_right_gives_no_warning() -> None:
    notes = {
        names.ANNOTATION_MODE: "nats",
        "example.com/sidecar": "x",
        "dapr.io/app-port": "80",
        names.LABEL_NETWORK: "x",
    }
    decision = decision_on(make_pod(notes))
    assert isinstance(decision, Inject)
    assert decision.warnings == ()
    again = decision_on(injected(make_pod(notes)))
    assert isinstance(again, Inject)
    assert again.warnings == ()


def test_many_unknown_annotations_give_a_few_warnings() -> None:
    decision = decision_on(make_pod({f"{names.PREFIX}x{number}": "" for number in range(1000)}))
    assert isinstance(decision, Inject)
    assert len(decision.warnings) == 5
