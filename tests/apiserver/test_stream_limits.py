"""Sizes and ages of Streams that an API server refuses by itself, with a sentence that says what to write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.crd import definitions
from edgefarm.api.stream import Stream
from edgefarm.errors import InvalidResource
from tests.apiserver.rest import Json, Rest
from tests.apiserver.waiting import eventually

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
#: A group of its own: other tests install the real definitions.
GROUP = "streams.example.org"
SIZE = "must be a size from 1 to below 8Ei: write for example 500Mi, or -1 for unlimited"
AGE = "must be longer than zero, with a unit: write for example 90s, 1h30m or 30d, or -1 for unlimited"
LONG = "must not be longer than 292 years: write for example 1h30m, 30d or 10y"


@pytest.fixture(scope="module")
def served(rest: Rest) -> str:
    """The definition under a group of this module."""
    made = definitions()[f"{names.GROUP}_streams.yaml"]
    rest.create(CRDS, json.loads(json.dumps(made).replace(names.GROUP, GROUP)))
    eventually(lambda: rest.get(f"/apis/{GROUP}/{names.VERSION}/streams").status == 200)
    return f"/apis/{GROUP}/{names.VERSION}"


def stream(config: Json) -> Json:
    spec = {"name": "S", "location": "main", "subjects": ["s.>"], "config": config}
    return {"apiVersion": f"{GROUP}/{names.VERSION}", "kind": "Stream", "metadata": {"name": "s"}, "spec": spec}


@pytest.mark.parametrize(
    ("member", "value", "sentence"),
    [
        ("maxBytes", -5, SIZE),
        ("maxBytes", 0, SIZE),
        ("maxBytes", "0", SIZE),
        ("maxBytes", "0.0Gi", SIZE),
        ("maxBytes", "-5Mi", SIZE),
        ("maxBytes", "8Ei", SIZE),
        ("maxBytes", "9999999Ti", SIZE),
        ("maxBytes", "much", SIZE),
        ("maxAge", 0, AGE),
        ("maxAge", 30, AGE),
        ("maxAge", "0s", AGE),
        ("maxAge", "0d0h", AGE),
        ("maxAge", "293y", LONG),
        ("maxAge", "300y", LONG),
        ("maxAge", "1h1000y", LONG),
        ("maxAge", "9999999999s", LONG),
        ("maxAge", "5 days", LONG),
        ("maxMsgs", 0, "must not be 0: write -1 for unlimited"),
        ("maxMsgs", -2, "should be greater than or equal to -1"),
        ("maxMsgSize", -2, "should be greater than or equal to -1"),
        ("maxMsgSize", 2**31, "should be less than or equal to 2147483647"),
    ],
)
def test_what_jetstream_cannot_take_is_refused(
    rest: Rest, served: str, namespace: str, member: str, value: Any, sentence: str
) -> None:
    made = stream({member: value})
    answer = rest.post(f"{served}/namespaces/{namespace}/streams", made)
    assert answer.status == 422
    assert f"spec.config.{member}" in answer.body["message"]
    assert sentence in answer.body["message"]
    given = {"name": "s", "namespace": namespace, "uid": "u", "creationTimestamp": "2026-01-31T12:00:00Z"}
    with pytest.raises(InvalidResource, match=member):
        Stream.parse({**made, "metadata": given})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("maxBytes", value) for value in (-1, "-1", 1, "1", "0.5Ki", "1e9", ".5Gi", 2**62, "7Ei", "1m")),
        *(("maxAge", value) for value in (-1, "-1", "1s", "1h30m", "36500d", "31536000s", "292y", "1y1M1d1h1m1s")),
        *((member, -1) for member in ("maxMsgs", "maxMsgSize", "maxMsgsPerSubject")),
        ("maxMsgSize", 2**31 - 1),
        ("maxMsgs", 2**62),
    ],
)
def test_what_jetstream_takes_is_admitted(rest: Rest, served: str, namespace: str, member: str, value: Any) -> None:
    Stream.parse(rest.create(f"{served}/namespaces/{namespace}/streams", stream({member: value})))
