"""How a review is read and answered, without HTTP: what of its JSON matters, and what a refusal says."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings

from edgefarm import names
from edgefarm.errors import InvalidReview
from tests.webhook import strategies
from tests.webhook.conftest import SETTINGS, Json, make_pod, make_review, operations_for
from webhook import review
from webhook.annotations import Mode
from webhook.decide import Inject, decide
from webhook.pod import check_shape


def _answer(body: bytes) -> Json:
    response: Json = json.loads(review.answer(review.read(body, review.CONTENT_TYPE), SETTINGS).body)["response"]
    return response


def _patch(body: bytes) -> list[Json]:
    patch: list[Json] = json.loads(base64.b64decode(_answer(body)["patch"]))
    return patch


def _refusal(body: bytes) -> str:
    with pytest.raises(InvalidReview) as raised:
        review.read(body, review.CONTENT_TYPE)
    assert raised.value.status == 400
    return str(raised.value)


def _dump(obj: Any, **request: Any) -> bytes:
    return json.dumps(make_review(obj, **request)).encode()


@settings(max_examples=200, deadline=None)
@given(pod=strategies.pods())
def test_an_answer_carries_the_very_operations_that_the_offline_command_applies(pod: Json) -> None:
    decision = decide(check_shape(pod), "team-a", SETTINGS)
    response = _answer(_dump(pod))
    if isinstance(decision, Inject) and operations_for(pod):
        assert json.loads(base64.b64decode(response["patch"])) == operations_for(pod)
    else:
        assert "patch" not in response


def test_members_that_are_null_are_absent() -> None:
    nothing: Any = None
    pod = make_pod(mode=Mode.NATS)
    expected = _patch(_dump(pod))
    pod["metadata"] |= {"name": nothing, "namespace": nothing}
    pod["spec"] |= dict.fromkeys(("initContainers", "volumes", "nodeSelector", "os", "resources", "hostNetwork"))
    pod["spec"]["containers"][0] |= dict.fromkeys(("env", "volumeMounts", "volumeDevices", "ports", "restartPolicy"))
    assert _patch(_dump(pod, subResource=nothing, dryRun=nothing)) == expected


def test_members_that_are_not_read_may_be_anything() -> None:
    pod = make_pod()
    expected = _patch(_dump(pod))
    pod["spec"]["containers"][0] |= {"image": 5, "resources": [], "env": []}
    pod["spec"]["affinity"] = "x" * 10_000
    body = _dump(pod, oldObject=[1], userInfo={"extra": None}).replace(b'"publisher"', b'"publ\xc3\xbcsher"')
    assert _patch(body) == expected
    # Go puts a replacement character for what is no UTF-8.
    assert _patch(body.replace(b"x" * 10_000, b"\xff")) == expected


def test_of_a_member_that_is_there_twice_the_last_holds() -> None:
    body = _dump(make_pod()).replace(b'"serviceAccountName"', b'"serviceAccountName": "other", "serviceAccountName"')
    assert _patch(body) == _patch(_dump(make_pod()))


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        (None, "object: Expected `object`, got `null`"),
        (make_pod(containers=[]), "spec.containers: Expected `array` of length >= 1"),
        (make_pod(containers=[{"image": "x"}]), "spec.containers[0]: Object missing required field `name`"),
        (make_pod(containers=[{"name": 5}]), "spec.containers[0].name: Expected `str`, got `int`"),
        (make_pod(containers=[{"name": "a", "env": [{}]}]), "env[0]: Object missing required field `name`"),
        (make_pod(nodeSelector={"a": "b", "c": True}), "spec.nodeSelector['c']: Expected `str`, got `bool`"),
        (make_pod({names.ANNOTATION_INJECT: False}), f"metadata.annotations['{names.ANNOTATION_INJECT}']: Expected"),  # type: ignore[dict-item]
    ],
)
def test_a_refusal_names_the_member_of_the_pod(obj: Any, says: str) -> None:
    sentence = _refusal(_dump(obj))
    assert sentence.startswith("the request's object is not a pod: ")
    assert says in sentence


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is not JSON: "),
        (b"[" * 100_000, "the body must be an AdmissionReview of admission.k8s.io/v1: Expected `object`, got `array`"),
        (b'{"request": ' + b'{"x":' * 100_000, "the body is not JSON: "),
        (_dump(make_pod()) + b"x", "the body is not JSON: "),
        (_dump(make_pod(), uid=""), "request.uid: Expected `str` of length >= 1"),
        (_dump(make_pod(), namespace=7), "request.namespace: Expected `str | null`, got `int`"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "missing required field `request`"),
    ],
)
def test_a_refusal_says_why_a_body_is_no_review(body: bytes, says: str) -> None:
    assert says in _refusal(body)
