"""Subjects, JSON and parts of the agents' bus, without any connection."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import agentbus
from edgefarm.agentbus import Accepted, Denied, Network, Registration, Status
from edgefarm.agentparts import MAX_BYTES, PART_BYTES, Answer, AnswerParts, Message, Request, RequestParts
from edgefarm.errors import InvalidMessage
from edgefarm.nats import nkeys

#: Always the same, because they are part of the names of tests.
NKEY = nkeys.encode_public(nkeys.Prefix.USER, bytes(32))
ACCOUNT = nkeys.encode_public(nkeys.Prefix.ACCOUNT, bytes(32))
REGISTRATION = Registration("the.proof.token", "edge-1", "agent 1", network=True, containers=False, new=True)
REQUEST = Request("id-1", 30.0, Network.HOST, b"query")
#: Three parts, of which the last is short.
LARGE = bytes(range(251)) * (PART_BYTES * 2 // 251 + 10)


@pytest.mark.parametrize(
    ("subject", "kind", "identifier"),
    [
        (agentbus.register_subject(NKEY), "register", ""),
        (agentbus.heartbeat_subject(NKEY), "heartbeat", ""),
        (agentbus.answer_subject(NKEY, "a-1_B"), "answer", "a-1_B"),
        (agentbus.request_subject(NKEY), "request", ""),
        (agentbus.reply_subject(NKEY, "7"), "reply", "7"),
    ],
)
def test_every_subject_is_read_as_it_was_made(subject: str, kind: str, identifier: str) -> None:
    assert agentbus.parse_subject(subject) == agentbus.Address(NKEY, kind, identifier)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "agent",
        f"agent.{NKEY}",
        f"agent.{NKEY}.up",
        f"agent.{NKEY}.up.request",
        f"agent.{NKEY}.down.answer.1",
        f"agent.{NKEY}.up.answer",
        f"agent.{NKEY}.up.register.1",
        f"agent.{NKEY}.up.answer.1.2",
        f"agent.{NKEY}.up.answer.*",
        f"agent.{NKEY}.up.answer.>",
        f"agent.{NKEY}.up.answer." + "x" * 65,
        f"agents.{NKEY}.up.register",
        f"agent.{NKEY[:-1]}.up.register",
        f"agent.{ACCOUNT}.up.register",
        "agent.*.up.register",
    ],
)
def test_other_subjects_are_none_of_ours(subject: str) -> None:
    with pytest.raises(InvalidMessage):
        agentbus.parse_subject(subject)


def test_an_identifier_cannot_widen_a_subject() -> None:
    for identifier in ("", "a.b", "*", ">", "a b", "ä"):
        with pytest.raises(InvalidMessage):
            agentbus.answer_subject(NKEY, identifier)


def test_a_registration_survives_its_journey_and_hides_its_token() -> None:
    assert Registration.decode(REGISTRATION.encode()) == REGISTRATION
    assert "proof" not in repr(REGISTRATION)


def test_a_registration_may_grow() -> None:
    members = {**json.loads(REGISTRATION.encode()), "later": [1, 2]}
    assert Registration.decode(json.dumps(members).encode()) == REGISTRATION


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 2}, "version"),
        ({"token": ""}, "token"),
        ({"token": 7}, "token"),
        ({"hostname": "a\nb"}, "hostname"),
        ({"hostname": "x" * 2000}, "hostname"),
        ({"program": None}, "program"),
        ({"network": "yes"}, "network"),
        ({"containers": 1}, "containers"),
        ({"new": None}, "new"),
    ],
)
def test_a_wrong_member_of_a_registration_is_named_without_the_token(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidMessage, match=named) as raised:
        Registration.decode(json.dumps({**json.loads(REGISTRATION.encode()), **change}).encode())
    assert "proof" not in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 50_000, b'"' + b"x" * 100_000 + b'"'])
def test_garbage_is_no_registration_and_no_reply(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        Registration.decode(data)
    with pytest.raises(InvalidMessage):
        agentbus.decode_reply(data)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    for read in (Registration.decode, agentbus.decode_reply):
        with contextlib.suppress(InvalidMessage):
            read(data)


def test_replies_survive_their_journey() -> None:
    for reply in (Accepted("edge-1", 10), Denied("TokenRefused", "The token has expired.")):
        assert agentbus.decode_reply(reply.encode()) == reply


def test_a_refusal_in_many_lines_arrives_as_one() -> None:
    reply = agentbus.decode_reply(Denied("TokenRefused", "one\n two\t" + "x" * 5000).encode())
    assert isinstance(reply, Denied)
    assert reply.message.startswith("one two xxx")


@pytest.mark.parametrize("seconds", [0, -1, 3601, 1.5, True, "10", None])
def test_heartbeats_must_come_at_a_sensible_pace(seconds: object) -> None:
    with pytest.raises(InvalidMessage, match="heartbeatSeconds"):
        agentbus.decode_reply(json.dumps({"ok": True, "device": "a", "heartbeatSeconds": seconds}).encode())


def collect(messages: list[Message]) -> Request | None:
    """The request that a fresh agent makes of these messages."""
    parts, found = RequestParts(), None
    for message in messages:
        found = parts.add(message.headers, message.payload, 0) or found
    return found


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, len(LARGE)])
def test_requests_and_answers_travel_in_parts_of_bounded_size(size: int) -> None:
    request = replace(REQUEST, data=LARGE[:size])
    messages = request.messages()
    assert len(messages) == max(1, -(-size // PART_BYTES))
    assert all(len(message.payload) <= PART_BYTES for message in messages)
    assert collect(messages) == request
    answer, parts = Answer(Status.DONE, LARGE[:size], 0), AnswerParts()
    assert [parts.add(message.headers, message.payload) for message in answer.messages()][-1] == answer


@given(st.permutations(range(3)), st.lists(st.integers(0, 2), max_size=3))
def test_order_and_repetition_of_parts_do_not_matter(order: list[int], repeated: list[int]) -> None:
    request = replace(REQUEST, data=LARGE)
    messages = request.messages()
    assert collect([messages[index] for index in (*order[:2], *(i for i in repeated if i in order[:2]), order[2])]) == (
        request
    )


@pytest.mark.parametrize("status", list(Status))
def test_every_status_survives_its_journey(status: Status) -> None:
    for exit_status in (None, 0, 3, -9):
        answer = Answer(status, b"words", exit_status)
        (message,) = answer.messages()
        assert AnswerParts().add(message.headers, message.payload) == answer


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (agentbus.HEADER_PART, ""),
        (agentbus.HEADER_PART, "0/1"),
        (agentbus.HEADER_PART, "2/1"),
        (agentbus.HEADER_PART, "1/9999"),
        (agentbus.HEADER_PART, "1/\u0661"),
        (agentbus.HEADER_ID, "a.b"),
        (agentbus.HEADER_TIMEOUT, "0"),
        (agentbus.HEADER_TIMEOUT, "-1"),
        (agentbus.HEADER_TIMEOUT, "nan"),
        (agentbus.HEADER_TIMEOUT, "1e9"),
        (agentbus.HEADER_TIMEOUT, "4000"),
        (agentbus.HEADER_NETWORK, "both"),
    ],
)
def test_wrong_headers_of_requests_are_refused(header: str, value: str) -> None:
    (message,) = REQUEST.messages()
    with pytest.raises(InvalidMessage):
        RequestParts().add({**message.headers, header: value}, b"", 0)
    with pytest.raises(InvalidMessage):
        RequestParts().add(None, b"", 0)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {agentbus.HEADER_PART: "1/1"},
        {agentbus.HEADER_PART: "1/1", agentbus.HEADER_STATUS: "fine"},
        {agentbus.HEADER_PART: "1/1", agentbus.HEADER_STATUS: "done", agentbus.HEADER_EXIT: "zero"},
    ],
)
def test_wrong_headers_of_answers_are_refused(headers: dict[str, str] | None) -> None:
    with pytest.raises(InvalidMessage):
        AnswerParts().add(headers, b"")


def test_parts_that_do_not_agree_are_refused() -> None:
    first, second, _ = Answer(Status.DONE, LARGE).messages()
    parts = AnswerParts()
    parts.add(first.headers, first.payload)
    with pytest.raises(InvalidMessage, match="status"):
        parts.add({**second.headers, agentbus.HEADER_STATUS: "failed"}, second.payload)
    with pytest.raises(InvalidMessage, match="belong"):
        parts.add({**second.headers, agentbus.HEADER_PART: "2/4"}, second.payload)


def test_no_more_than_the_limit_is_kept() -> None:
    first, second, _ = Answer(Status.DONE, LARGE).messages()
    parts = AnswerParts(max_bytes=PART_BYTES + 1)
    parts.add(first.headers, first.payload)
    with pytest.raises(InvalidMessage, match="more than"):
        parts.add(second.headers, second.payload)
    with pytest.raises(InvalidMessage, match="at most"):
        Answer(Status.DONE, bytes(MAX_BYTES + 1)).messages()


def test_mixed_requests_are_kept_apart_but_not_without_limit() -> None:
    parts = RequestParts(max_bytes=3 * PART_BYTES + 10_000)
    one, other, third = (replace(REQUEST, id=name, data=LARGE).messages() for name in ("one", "other", "third"))
    for index in range(2):
        assert parts.add(one[index].headers, one[index].payload, 0) is None
    assert parts.add(other[0].headers, other[0].payload, 0) is None
    with pytest.raises(InvalidMessage, match="Incomplete"):
        parts.add(third[0].headers, third[0].payload, 0)
    whole = parts.add(one[2].headers, one[2].payload, 0)
    assert whole is not None
    assert whole.data == LARGE


def test_a_request_that_stays_incomplete_is_forgotten() -> None:
    parts = RequestParts(max_bytes=2 * PART_BYTES, patience=60)
    one, other = (replace(REQUEST, id=name, data=LARGE[: 2 * PART_BYTES]).messages() for name in ("one", "other"))
    assert parts.add(one[0].headers, one[0].payload, 0) is None
    assert parts.add(other[0].headers, other[0].payload, 61) is None
    whole = parts.add(other[1].headers, other[1].payload, 62)
    assert whole is not None
    assert whole.id == "other"


def test_the_bytes_of_requests_are_not_shown() -> None:
    request = replace(REQUEST, data=b"private")
    assert "private" not in repr(request) + repr(request.messages()) + repr(Answer(Status.DONE, b"private"))
