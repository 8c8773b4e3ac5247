"""Reviews with arbitrary JSON in arbitrary places: answered or refused with a sentence, never a crash."""

from __future__ import annotations

import copy
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgefarm import names
from edgefarm.errors import InvalidReview
from tests.webhook.conftest import SETTINGS, injected, make_pod, make_review
from webhook import review
from webhook.annotations import Mode

_FULL = make_pod(
    {names.ANNOTATION_DAPR_APP_PORT: "8080", names.ANNOTATION_DAPR_APP_ID: "app"},
    mode=Mode.NATS,
    serviceAccount="sensor",
    hostNetwork=True,
    nodeSelector={"kubernetes.io/os": "linux"},
    os={"name": "linux"},
    securityContext={"runAsUser": 1, "supplementalGroups": [1]},
    volumes=[{"name": "data", "emptyDir": {}}],
    initContainers=[{"name": "init", "env": [{"name": "A", "value": "b"}]}],
    containers=[
        {
            "name": "app",
            "env": [{"name": "A", "value": "b"}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
        }
    ],
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


def _places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, inner in items for place in _places(inner, (*path, name)))]


_REVIEWS = [make_review(_FULL), make_review(injected(make_pod())), make_review(injected(make_pod(mode=Mode.NATS)))]
_PLACES = [(index, place) for index, each in enumerate(_REVIEWS) for place in _places(each) if place]


def _answer(body: bytes) -> bytes | InvalidReview:
    try:
        return review.answer(review.read(body, "application/json"), SETTINGS).body
    except InvalidReview as error:
        return error


@settings(max_examples=1500, deadline=None)
@given(place=st.sampled_from(_PLACES), value=_JSON)
@example(place=(0, ("request", "object", "metadata", "labels", names.LABEL_NETWORK)), value="x" * 100_000)
@example(place=(0, ("request", "object", "spec", "serviceAccount")), value="\n" * 1000)
def test_any_member_may_be_anything(place: tuple[int, tuple[str | int, ...]], value: Any) -> None:
    index, path = place
    body = copy.deepcopy(_REVIEWS[index])
    target: Any = body
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    answer = _answer(orjson.dumps(body))
    if isinstance(answer, InvalidReview):
        assert 400 <= answer.status < 500
        assert "\n" not in str(answer)
        assert len(str(answer)) < 500
        return
    response = orjson.loads(answer)["response"]
    assert response["uid"] == body["request"]["uid"]
    assert len(response.get("status", {}).get("message", "")) <= 400
    assert all(len(warning) < 120 for warning in response.get("warnings", []))


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=200) | _JSON.map(orjson.dumps), content_type=st.text(max_size=30))
def test_any_bytes_are_refused(body: bytes, content_type: str) -> None:
    for kind in (content_type, "application/json"):
        try:
            review.read(body, kind)
        except InvalidReview:
            continue
        raise AssertionError("accepted")
