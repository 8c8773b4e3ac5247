"""What a stream is to be in JetStream, and what may be done about one that is different: tables without a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import names
from reconciler.desired.streams import MAIN, StreamPlan
from reconciler.desired.streams_config import Observed, Owner, Step, decide, needs_fullest_subject, wanted_config
from tests.reconciler.objects import NOW
from tests.reconciler.test_streams import leaf, stream

OLDEST = NOW - timedelta(hours=2)


def wanted(*, location: str = "main", link: str | None = None, replicas: int = 1, **config: Any) -> dict[str, Any]:
    linked = {} if link is None else {"link": link}
    sources = () if link is None else ((leaf("one"), leaf("two")) if location == "main" else (MAIN,))
    plan = StreamPlan(stream(location=location, config=config, **linked), (MAIN,), sources)
    return wanted_config(plan, MAIN if location == "main" else leaf("one"), replicas)


def answered(config: Mapping[str, Any], **state: Any) -> Observed:
    """What a server says of a stream that was made with `config`."""
    served = {name: value for name, value in config.items() if value not in ([], None)}
    defaults = {"max_consumers": -1, "duplicate_window": 120_000_000_000, "compression": "none", "sealed": False}
    metadata = {**served["metadata"], "_nats.ver": "2.15.1"}
    for linked in (*served.get("sources", ()), *filter(None, [served.get("mirror")])):
        linked["external"]["deliver"] = ""
    return Observed({"config": {**defaults, **served, "metadata": metadata}, "state": state})


def step(new: Mapping[str, Any], observed: Observed, *, lossy: bool = False) -> Step:
    made = stream()
    if lossy:
        annotations = {names.ANNOTATION_ALLOW_DATA_LOSS: "true"}
        made = replace(made, meta=replace(made.meta, annotations=annotations))
    return decide(new, made, observed, NOW)


def test_all_fields_of_the_config_arrive_in_the_terms_of_jetstream() -> None:
    config = wanted(
        storage="memory",
        retention="workqueue",
        discard="new",
        maxMsgs=5,
        maxMsgsPerSubject=2,
        maxBytes="1Mi",
        maxAge="1h30m",
        maxMsgSize=1000,
        replicas=3,
    )
    assert config == {
        "name": "READINGS",
        "metadata": {names.STREAM_OWNER: "factory/readings", names.STREAM_OWNER_UID: "factory-readings"},
        "storage": "memory",
        "retention": "workqueue",
        "discard": "new",
        "max_msgs": 5,
        "max_msgs_per_subject": 2,
        "max_bytes": 2**20,
        "max_msg_size": 1000,
        "max_age": 5400 * 10**9,
        "num_replicas": 3,
        "subjects": ["readings.>"],
        "sources": [],
        "mirror": None,
    }


def test_what_is_left_out_is_unlimited() -> None:
    config = wanted()
    assert [config[name] for name in ("max_msgs", "max_msgs_per_subject", "max_bytes", "max_msg_size")] == [-1] * 4
    assert config["max_age"] == 0


def test_links_become_sources_and_a_mirror_and_replicas_are_the_hubs_alone() -> None:
    main = wanted(link="EDGE", replicas=3)
    assert main["sources"] == [
        {"name": "EDGE", "external": {"api": "$JS.foo-one.API"}},
        {"name": "EDGE", "external": {"api": "$JS.foo-two.API"}},
    ]
    assert main["num_replicas"] == 3
    edge = wanted(location="edge", link="MAIN", replicas=3)
    assert edge["mirror"] == {"name": "MAIN", "external": {"api": "$JS.main.API"}}
    assert (edge["subjects"], edge["num_replicas"]) == ([], 1)


@pytest.mark.parametrize("link", [None, "EDGE"])
def test_a_stream_as_the_server_tells_it_is_equal_to_what_it_was_made_with(link: str | None) -> None:
    config = wanted(link=link, maxAge="1m")
    assert step(config, answered(config)) == Step("equal")


@pytest.mark.parametrize(
    ("metadata", "kind"),
    [
        ({}, "foreign"),
        ({names.STREAM_OWNER: "factory/readings", names.STREAM_OWNER_UID: "of an earlier one"}, "foreign"),
        ({names.STREAM_OWNER: "factory/other", names.STREAM_OWNER_UID: "factory-readings"}, "foreign"),
        (Owner("factory", "readings", "factory-readings").marks() | {"more": "x"}, "equal"),
    ],
)
def test_only_a_stream_with_this_objects_marks_is_ours(metadata: dict[str, str], kind: str) -> None:
    config = wanted()
    observed = answered(config)
    assert observed.info is not None
    observed.info["config"]["metadata"] = metadata
    assert step(config, observed).kind == kind


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"storage": "file"}, {"storage": "memory"}, "spec.config.storage (from file to memory)"),
        ({"retention": "limits"}, {"retention": "workqueue"}, "spec.config.retention (from limits to workqueue)"),
        ({"retention": "workqueue"}, {"retention": "interest"}, "spec.config.retention (from workqueue to interest)"),
        (
            {"location": "edge"},
            {"location": "edge", "link": "M"},
            "spec.link.stream (from subjects to the link to 'M')",
        ),
        (
            {"location": "edge", "link": "L"},
            {"location": "edge", "link": "M"},
            "spec.link.stream (from the link to 'L' to the link to 'M')",
        ),
    ],
)
def test_what_jetstream_cannot_change_is_named_with_old_and_new_value(old: Any, new: Any, words: str) -> None:
    found = step(wanted(**new), answered(wanted(**old)), lossy=True)
    assert found.kind == "cannot"
    assert found.config is None
    assert found.message == f"{words} cannot be changed: delete the Stream and create it anew if its data may go"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({}, {"maxMsgs": 10}),
        ({}, {"maxBytes": 5000}),
        ({}, {"maxAge": "3h"}),
        ({}, {"maxMsgSize": 1}),
        ({"maxMsgs": 3}, {}),
        ({"retention": "interest"}, {"retention": "limits"}),
        ({"discard": "new"}, {"discard": "old"}),
        ({"maxMsgs": 20}, {"maxMsgs": 2, "discard": "new"}),
        ({"link": "EDGE"}, {}),
        ({}, {"link": "EDGE"}),
        ({"location": "edge", "link": "MAIN"}, {"location": "edge"}),
    ],
)
def test_what_loses_nothing_is_updated(old: Any, new: Any) -> None:
    config = wanted(**new)
    found = step(config, answered(wanted(**old), messages=10, bytes=5000, first_ts=OLDEST.isoformat()))
    assert found.kind == "update"
    assert found.config is not None
    assert {name: found.config.get(name, empty) for name, empty in (("subjects", []), ("sources", []))} == {
        "subjects": config["subjects"],
        "sources": config["sources"],
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({}, {"maxMsgs": 9}, "spec.config.maxMsgs (9) is less than it holds (10)"),
        ({}, {"maxBytes": 4999}, "spec.config.maxBytes (4999) is less than it holds (5000)"),
        ({}, {"maxAge": "1h"}, "spec.config.maxAge (1:00:00) would remove older messages"),
        ({}, {"maxMsgsPerSubject": 5}, "spec.config.maxMsgsPerSubject (5) is less than it holds of one subject (6)"),
        ({}, {"retention": "interest"}, "spec.config.retention interest would remove those of its 10 messages"),
        ({"discard": "new", "maxMsgs": 9}, {"maxMsgs": 9}, "spec.config.maxMsgs (9) is less than it holds (10)"),
        ({}, {"maxMsgs": 9, "maxBytes": 1}, "; spec.config.maxBytes (1) is less than it holds (5000)"),
    ],
)
def test_what_would_remove_messages_needs_leave(old: Any, new: Any, words: str) -> None:
    state = {"messages": 10, "bytes": 5000, "first_ts": OLDEST.isoformat()}
    observed = replace(answered(wanted(**old), **state), fullest_subject=6)
    found = step(wanted(**new), observed)
    assert found.kind == "loss"
    assert found.config is None
    assert words in found.message
    assert f"annotate the Stream with {names.ANNOTATION_ALLOW_DATA_LOSS}=true" in found.message
    assert step(wanted(**new), observed, lossy=True).kind == "update"
    empty = answered(wanted(**old), messages=0, bytes=0, first_ts="0001-01-01T00:00:00Z")
    assert step(wanted(**new), empty).kind == "update"


def test_the_fullest_subject_is_asked_for_only_when_that_limit_shrinks_below_what_is_held() -> None:
    old, new = wanted(), wanted(maxMsgsPerSubject=5)
    assert needs_fullest_subject(new, answered(old, messages=6))
    assert not needs_fullest_subject(new, answered(old, messages=5))
    assert not needs_fullest_subject(new, answered(new, messages=6))
    assert not needs_fullest_subject(old, answered(new, messages=6))
    assert not needs_fullest_subject(new, Observed(None))


def test_an_update_leaves_what_is_not_ours_as_it_is_but_for_the_window_of_duplicates() -> None:
    observed = answered(wanted())
    assert observed.info is not None
    observed.info["config"] |= {"allow_direct": True, "max_consumers": 7}
    observed.info["config"]["metadata"]["team"] = "x"
    found = step(wanted(maxAge="1m"), observed)
    assert found.config is not None
    assert (found.config["allow_direct"], found.config["max_consumers"]) == (True, 7)
    assert found.config["metadata"] == {**wanted()["metadata"], "team": "x"}
    assert "duplicate_window" not in found.config
    assert found.config["max_age"] == 60 * 10**9


def test_sources_of_nodes_that_have_left_are_dropped_and_their_order_does_not_matter() -> None:
    config = wanted(link="EDGE")
    turned = {**config, "sources": config["sources"][::-1]}
    assert step(turned, answered(config)) == Step("equal")
    fewer = {**config, "sources": config["sources"][:1]}
    found = step(fewer, answered(config))
    assert found.config is not None
    assert found.config["sources"] == fewer["sources"]


@pytest.mark.parametrize("value", ["false", "yes", ""])
def test_only_the_word_true_allows_a_loss(value: str) -> None:
    made = stream()
    made = replace(made, meta=replace(made.meta, annotations={names.ANNOTATION_ALLOW_DATA_LOSS: value}))
    assert decide(wanted(maxMsgs=1), made, answered(wanted(), messages=2), NOW).kind == "loss"


LIMITS = st.one_of(st.just(-1), st.integers(1, 50))


@given(
    old=st.fixed_dictionaries({"maxMsgs": LIMITS, "maxBytes": LIMITS, "discard": st.sampled_from(["old", "new"])}),
    new=st.fixed_dictionaries({"maxMsgs": LIMITS, "maxBytes": LIMITS, "discard": st.sampled_from(["old", "new"])}),
    messages=st.integers(0, 60),
    size=st.integers(0, 60),
)
def test_no_update_without_leave_asks_a_server_to_discard_what_it_holds(
    old: dict[str, Any], new: dict[str, Any], messages: int, size: int
) -> None:
    found = step(wanted(**new), answered(wanted(**old), messages=messages, bytes=size))
    if found.config is not None and found.config["discard"] == "old" and messages:
        assert found.config["max_msgs"] == -1 or found.config["max_msgs"] >= messages
        assert found.config["max_bytes"] == -1 or found.config["max_bytes"] >= size
