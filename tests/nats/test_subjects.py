"""Subjects and filters: against a matcher that tries every subject, and against a real server."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.errors import InvalidSubject
from edgefarm.nats.subjects import MAX_LENGTH, check_filter, covers, overlaps
from edgefarm.nats.templates import PermissionTemplate
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Hub

#: Every subject of up to five tokens; `c` occurs in no filter, so it stands for all other words.
SUBJECTS = [".".join(tokens) for length in range(1, 6) for tokens in itertools.product("abc", repeat=length)]

filters = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
) | st.just(">")


def matches(pattern: str, subject: str) -> bool:
    """The definition, token by token and by recursion."""
    head, _, rest = pattern.partition(".")
    word, _, words = subject.partition(".")
    if head == ">":
        return True
    if head not in ("*", word):
        return False
    return matches(rest, words) if rest and words else rest == words


@given(filters, filters)
def test_covers_says_what_trying_every_subject_says(outer: str, inner: str) -> None:
    assert covers(outer, inner) == all(matches(outer, one) for one in SUBJECTS if matches(inner, one))


@given(filters, filters)
def test_overlaps_says_what_trying_every_subject_says(a: str, b: str) -> None:
    assert overlaps(a, b) == any(matches(a, one) and matches(b, one) for one in SUBJECTS)
    assert overlaps(a, b) == overlaps(b, a)


@given(filters)
def test_every_filter_of_this_kind_is_valid_and_covers_itself(pattern: str) -> None:
    assert check_filter(pattern) == pattern
    assert covers(pattern, pattern)
    assert covers(">", pattern)


async def test_a_real_server_delivers_what_the_filters_say(hub: Hub, system: SystemClient) -> None:
    account = hub.operator.account("net")
    account.scope("all", PermissionTemplate())
    await system.push(account.token())
    chosen = random.Random(1)
    patterns = [".".join(tokens) for length in (1, 2, 3) for tokens in itertools.product("ab*", repeat=length)]
    patterns += [f"{pattern}.>" for pattern in patterns if pattern.count(".") < 2] + [">"]
    subjects = chosen.sample(SUBJECTS, 60)
    async with await Connection.open(hub.url, hub.authority, account.user("all")) as connection:
        subscriptions = {pattern: await connection.client.subscribe(pattern) for pattern in patterns}
        for subject in subjects:
            await connection.client.publish(subject)
        await connection.settle()
        for pattern, subscription in subscriptions.items():
            received = [(await subscription.next_msg(timeout=1)).subject for _ in range(subscription.pending_msgs)]
            assert received == [subject for subject in subjects if covers(pattern, subject)], pattern


@pytest.mark.parametrize(
    "good",
    [
        "a",
        "a.b",
        "sensor.kitchen-1.temperature_°C",
        "$SYS.x",
        "a*b.c>d",
        "*a",
        "x" * 1024,
        "*",
        ">",
        "a.*",
        "*.a",
        "a.*.b.>",
    ],
)
def test_subjects_with_and_without_wildcards_are_valid(good: str) -> None:
    assert check_filter(good) == good


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "must be a string, not NoneType"),
        (3, "must be a string, not int"),
        (["a"], "must be a string, not list"),
        ("", "must not be empty"),
        ("a b", "white space"),
        (" a", "white space"),
        ("a\tb", "white space"),
        ("a\r\nPUB b 0", "white space"),
        ("a\u00a0b", "white space"),
        ("a\0b", "control"),
        ("a\x7fb", "control"),
        ("a\u200bb", "invisible"),
        ("a\ud800", "invisible"),
        (".", "empty token"),
        (".a", "empty token"),
        ("a.", "empty token"),
        ("a..b", "empty token"),
        (">.a", "'>' in the middle"),
        ("a.>.b", "'>' in the middle"),
        ("a.>.>", "'>' in the middle"),
        ("x" * (MAX_LENGTH + 1), "longer than 1024 bytes"),
        ("é" * 513, "longer than 1024 bytes"),
        ("a.{{name()}}", "templates are not supported"),
    ],
)
def test_a_wrong_filter_is_refused_with_the_reason(bad: object, message: str) -> None:
    with pytest.raises(InvalidSubject, match=message) as caught:
        check_filter(bad)
    assert len(str(caught.value)) < 250


@given(st.text(max_size=20))
def test_any_text_is_either_valid_or_refused_with_one_printable_sentence(text: str) -> None:
    try:
        check_filter(text)
    except InvalidSubject as error:
        refusal = str(error)
    else:
        refusal = ""
    assert refusal.isprintable()
