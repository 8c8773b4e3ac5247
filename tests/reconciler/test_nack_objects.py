"""What NACK is told, by rules alone."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import names
from edgefarm.api.stream import Stream
from edgefarm.nats import creds, nkeys
from edgefarm.nats.claims import user_claims
from edgefarm.nats.nkeys import Prefix
from localcluster.apiserver.structural import apply_defaults, prune, validator, violations
from reconciler.desired import nack
from reconciler.desired.streams import MAIN, Place, StreamPlan
from reconciler.desired.streams_config import Owner, wanted_config
from reconciler.ports import NACK_STREAM, Object
from tests.natskit import sign
from tests.reconciler.nack_schema import ACCOUNT_SPEC, STREAM_SPEC
from tests.reconciler.objects import NOW, network, stream

EDGE = Place("foo-press_1", "press.1", "plant")
HUB = nack.Hub(("tls://hub:4222",), "-----BEGIN CERTIFICATE-----")
STORED = [
    {"location": "main"},
    {"location": "edge", "config": {"storage": "memory", "retention": "workqueue", "discard": "new"}},
    {
        "location": "main",
        "config": {"maxMsgs": 2**63 - 1, "maxBytes": "7Ei", "maxAge": "292y", "maxMsgSize": 2**31 - 1},
    },
    {"location": "main", "config": {"maxMsgsPerSubject": 5, "maxAge": "90s", "maxBytes": 1}},
    {"location": "main", "subjects": [], "link": {"stream": "OTHER"}},
    {"location": "edge", "subjects": [], "link": {"stream": "OTHER"}},
]


def told(**spec: Any) -> Object:
    """NACK's Stream object for a Stream like this."""
    wanted = Stream.parse(stream(**spec))
    place, other = (MAIN, EDGE) if wanted.location == "main" else (EDGE, MAIN)
    plan = StreamPlan(wanted, (place,), (other,) if wanted.link else ())
    return nack.stream_object(Owner.of(wanted.meta), "foo", place, wanted_config(plan, place, 3), "network")


def check(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """NACK knows every field, and takes every value."""
    assert list(prune(schema, dict(spec), root=False)) == []
    assert violations(validator(schema), spec) == []


@pytest.mark.parametrize("spec", STORED)
def test_nack_knows_and_takes_all_that_it_is_told_of_a_stream(spec: dict[str, Any]) -> None:
    obj = told(**spec)
    check(obj["spec"], STREAM_SPEC)
    assert (obj["apiVersion"], obj["kind"]) == (NACK_STREAM.api_version, "Stream")
    assert obj["spec"]["metadata"][names.STREAM_OWNER] == "factory/readings"


def test_nack_knows_and_takes_all_that_it_is_told_of_an_account() -> None:
    for hub in (HUB, replace(HUB, ca=None)):
        check(nack.account_object(network(), hub)["spec"], ACCOUNT_SPEC)
    assert "tls" not in nack.account_object(network(), replace(HUB, ca=None))["spec"]


def test_every_field_of_a_stream_has_its_place() -> None:
    config = {
        "storage": "memory",
        "retention": "interest",
        "discard": "new",
        "maxMsgs": 1,
        "maxMsgsPerSubject": 2,
        "maxBytes": "3Ki",
        "maxAge": "4h",
        "maxMsgSize": 5,
    }
    spec = told(location="main", subjects=["a.>", "b"], config=config)["spec"]
    assert {**spec, "metadata": None} == {
        **config,
        "maxBytes": 3072,
        "maxAge": "14400s",
        "account": "nack-foo",
        "jsDomain": "main",
        "name": "READINGS",
        "metadata": None,
        "subjects": ["a.>", "b"],
        "maxConsumers": -1,
        "replicas": 3,
        "duplicateWindow": "120s",
    }


def test_links_lead_through_the_api_of_the_other_domain() -> None:
    main = told(location="main", subjects=[], link={"stream": "OTHER"})["spec"]
    edge = told(location="edge", subjects=[], link={"stream": "OTHER"})["spec"]
    assert main["sources"] == [{"name": "OTHER", "externalApiPrefix": "$JS.foo-press_1.API"}]
    assert edge["mirror"] == {"name": "OTHER", "externalApiPrefix": "$JS.main.API"}
    assert (edge["jsDomain"], edge["replicas"]) == ("foo-press_1", 1)
    assert not {"subjects", "duplicateWindow"} & (main.keys() | edge.keys())


@pytest.mark.parametrize(
    ("age", "written", "window"),
    [
        (-1, "0s", "120s"),
        ("1m", "60s", "60s"),
        ("1h", "3600s", "120s"),
    ],
)
def test_ages_are_always_said_because_nack_would_take_a_year_and_windows_because_it_would_take_none(
    age: str | int, written: str, window: str
) -> None:
    spec = told(location="main", config={"maxAge": age})["spec"]
    assert (spec["maxAge"], spec["duplicateWindow"]) == (written, window)


def stored(obj: Object, **changes: Any) -> Object:
    """The object as the API server and NACK give it back."""
    spec = {**obj["spec"], **changes}
    apply_defaults(STREAM_SPEC, spec)
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "7"}, "spec": spec}


@pytest.mark.parametrize("spec", STORED)
def test_what_defaults_add_is_no_difference(spec: dict[str, Any]) -> None:
    obj = told(**spec)
    assert nack.mending_patch(stored(obj), obj) == {}


def test_what_others_changed_is_put_back_and_what_they_added_is_taken_away() -> None:
    obj = told(location="main")
    found = stored(obj, maxMsgs=5, servers=["nats://elsewhere:4222"], preventUpdate=True)
    found["metadata"]["annotations"] = {"theirs": "stays"}
    assert nack.mending_patch(found, obj) == {
        "metadata": {"annotations": obj["metadata"]["annotations"], "resourceVersion": "7"},
        "spec": {"maxMsgs": -1, "servers": None, "preventUpdate": None},
    }


def test_a_stream_that_nack_lets_be_is_marked_once() -> None:
    obj = stored(told(location="main"))
    assert nack.release_patch(obj) == {"spec": {"preventDelete": True}}
    assert nack.release_patch(stored(obj, preventDelete=True)) == {}


@pytest.mark.parametrize(
    ("wanted", "observed", "field"),
    [
        ({}, {"max_msgs_per_subject": 5}, "spec.config.maxMsgsPerSubject (from 5 to unlimited"),
        ({"max_msgs_per_subject": 4}, {"max_msgs_per_subject": 5}, ""),
        ({}, {"max_msgs_per_subject": -1}, ""),
        ({}, {"sources": [{"name": "A"}]}, "spec.link"),
        ({"sources": [{"name": "B"}]}, {"sources": [{"name": "A"}]}, ""),
        ({}, {"mirror": {"name": "A"}}, "spec.link"),
        ({}, {}, ""),
    ],
)
def test_what_nack_would_silently_leave_as_it_is_is_known(
    wanted: dict[str, Any], observed: dict[str, Any], field: str
) -> None:
    unset = {"max_msgs_per_subject": -1, "sources": [], "mirror": None}
    assert nack.not_carried({**unset, **wanted}, observed).startswith(field)
    assert bool(nack.not_carried({**unset, **wanted}, observed)) == bool(field)


@pytest.mark.parametrize(
    ("status", "observed", "ready"),
    [("True", 2, True), ("True", 1, None), ("False", 1, False), ("Unknown", 0, None), (None, 0, None)],
)
def test_nacks_word_counts_for_what_it_has_seen(status: str | None, observed: int, ready: bool | None) -> None:
    conditions = [] if status is None else [{"type": "Ready", "status": status, "message": "no"}]
    obj = {"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}}
    assert nack.word_about(obj).ready is ready
    assert nack.word_about(obj).message == ("no" if ready is False else "")


# -- names -------------------------------------------------------------------------------------------------------------

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
NODES = st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", fullmatch=True).filter(lambda name: ".." not in name)


@given(LABELS, LABELS, LABELS, NODES)
def test_names_of_nacks_streams_are_names_of_objects(namespace: str, name: str, net: str, node: str) -> None:
    found = names.nack_stream(namespace, name, names.leaf_domain(net, node))
    assert len(found) <= 253
    assert all(part and part[0].isalnum() and part[-1].isalnum() for part in found.split("."))
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert found.startswith(f"{namespace}.{name}.")


@given(*(st.tuples(LABELS, NODES),) * 2)
def test_different_domains_have_different_names(one: tuple[str, str], other: tuple[str, str]) -> None:
    domains = {names.leaf_domain(*one), names.leaf_domain(*other), names.MAIN_DOMAIN}
    assert len({names.nack_stream("a", "b", domain) for domain in domains}) == len(domains)


def test_names_that_people_read_are_readable() -> None:
    assert names.nack_stream("factory", "readings", "main") == "factory.readings.main"
    assert names.nack_stream("factory", "readings", "foo-press") == "factory.readings.foo-press"
    assert names.nack_stream("factory", "readings", "foo-press_1").startswith("factory.readings.foo-press-1.")
    assert names.nack_account("foo") == "nack-foo"


# -- credentials -------------------------------------------------------------------------------------------------------

ACCOUNT, SIGNING = nkeys.generate(Prefix.ACCOUNT), nkeys.generate(Prefix.ACCOUNT)


def secret(*, lifetime: timedelta = nack.CREDENTIALS_LIFETIME, account: str = ACCOUNT.public) -> Object:
    user = nkeys.generate_user()
    body = user_claims(
        name="nack",
        subject=user.public,
        issuer=SIGNING.public,
        account=account,
        jti="x",
        issued_at=int(NOW.timestamp()),
        expires_at=int((NOW + lifetime).timestamp()),
    )
    return nack.secret_object(network(), HUB, creds.format_creds(sign(body, SIGNING), user.seed))


def test_credentials_are_kept_until_a_third_of_their_life_is_over() -> None:
    found = secret()
    text = base64.b64decode(found["data"]["nats.creds"]).decode()
    for hours, kept in ((0, True), (7, True), (9, False), (30, False)):
        usable = nack.usable_credentials(found, ACCOUNT.public, SIGNING.public, NOW + timedelta(hours=hours))
        assert usable == (text if kept else None), hours


def test_credentials_of_another_account_or_key_are_made_anew() -> None:
    other = nkeys.generate(Prefix.ACCOUNT).public
    assert nack.usable_credentials(secret(account=other), ACCOUNT.public, SIGNING.public, NOW) is None
    assert nack.usable_credentials(secret(), ACCOUNT.public, other, NOW) is None


@pytest.mark.parametrize("data", [None, {}, {"nats.creds": "!"}, {"nats.creds": "AAAA"}, {"nats.creds": "/w=="}])
def test_credentials_that_cannot_be_read_are_made_anew(data: dict[str, str] | None) -> None:
    found = None if data is None else {"data": data}
    assert nack.usable_credentials(found, ACCOUNT.public, SIGNING.public, NOW) is None
