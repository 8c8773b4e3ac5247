"""Bodies of tokens, against vectors written by hand, and the permissions of a Policy as values."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.nats import claims
from edgefarm.nats.claims import AccountLimits, ScopedKey
from edgefarm.nats.subjects import covers
from edgefarm.nats.templates import PermissionTemplate, template_of_policy, unenforceable_subscriptions

#: All members of an account's limits in the reference implementation of version 2 that have a meaning for the server.
LIMITS = {
    "subs": -1,
    "data": -1,
    "payload": -1,
    "imports": -1,
    "exports": -1,
    "wildcards": True,
    "disallow_bearer": True,
    "conn": -1,
    "leaf": -1,
    "mem_storage": -1,
    "disk_storage": -1,
    "streams": -1,
    "consumer": -1,
}

words = st.sampled_from(["a.*", "a.>", "a.b", "*", "*.*", "b.*.c", "_INBOX.a.>", "a.*.*", ">"])
lists = st.lists(words, max_size=5)
SUBJECTS = [".".join(tokens) for length in range(1, 5) for tokens in itertools.product("abc", repeat=length)]


def granted(allow: tuple[str, ...], deny: tuple[str, ...], subject: str) -> bool:
    """What a subscriber can get at: like nats-server, where a final `*` lets a subscription with `>` pass."""
    widened = [pattern[:-1] + ">" if pattern.split(".")[-1] == "*" else pattern for pattern in allow]
    return any(covers(one, subject) for one in widened) and not any(covers(one, subject) for one in deny)


def test_an_operator_uses_strict_signing_keys() -> None:
    assert claims.operator_claims(
        name="edge", operator="O1", signing_keys=["O2", "O3"], system_account="A1", jti="id", issued_at=5
    ) == {
        "name": "edge",
        "sub": "O1",
        "iss": "O1",
        "jti": "id",
        "iat": 5,
        "nats": {
            "type": "operator",
            "version": 2,
            "signing_keys": ["O2", "O3"],
            "system_account": "A1",
            "strict_signing_key_usage": True,
        },
    }


def test_an_account_names_all_limits_and_the_template_of_each_key() -> None:
    template = PermissionTemplate(pub_allow=("p",), sub_deny=(">",))
    body = claims.account_claims(
        name="foo",
        account="A1",
        jti="id",
        issued_at=5,
        issuer="O2",
        limits=AccountLimits(disk_storage=7, mem_storage=0),
        signing_keys=[ScopedKey("A9", "sensor", template), "A2"],
    )
    scope = {
        "kind": "user_scope",
        "key": "A9",
        "role": "sensor",
        "template": {
            "pub": {"allow": ["p"]},
            "sub": {"deny": [">"]},
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": ["STANDARD"],
        },
    }
    assert body == {
        "name": "foo",
        "sub": "A1",
        "iss": "O2",
        "jti": "id",
        "iat": 5,
        "nats": {
            "type": "account",
            "version": 2,
            "limits": {**LIMITS, "disk_storage": 7, "mem_storage": 0},
            "signing_keys": ["A2", scope],
        },
    }


def test_the_order_of_signing_keys_makes_no_difference() -> None:
    keys = [ScopedKey(f"A{number}", "role", PermissionTemplate()) for number in range(4)]
    bodies = [
        claims.account_claims(
            name="foo", account="A", jti="", issued_at=0, issuer="O", limits=AccountLimits(), signing_keys=order
        )
        for order in itertools.permutations(keys)
    ]
    assert all(body == bodies[0] for body in bodies)


def test_a_user_under_a_scoped_key_has_nothing_that_limits_it() -> None:
    assert claims.user_claims(
        name="pod", subject="U1", issuer="A2", account="A1", jti="id", issued_at=5, expires_at=9
    ) == {
        "name": "pod",
        "sub": "U1",
        "iss": "A2",
        "jti": "id",
        "iat": 5,
        "exp": 9,
        "nats": {"type": "user", "version": 2, "issuer_account": "A1"},
    }


def test_a_deletion_is_issued_by_its_own_subject() -> None:
    assert claims.delete_claims(accounts=["A2", "A1"], issuer="O2", jti="id", issued_at=5) == {
        "name": "delete",
        "sub": "O2",
        "iss": "O2",
        "jti": "id",
        "iat": 5,
        "nats": {"type": "generic", "version": 2, "accounts": ["A1", "A2"]},
    }


@given(lists, lists, lists, lists, st.randoms())
def test_equal_policies_give_equal_templates(
    allowpub: list[str], allowsub: list[str], denypub: list[str], denysub: list[str], chance: random.Random
) -> None:
    again = [[*subjects, *subjects[:1]] for subjects in (allowpub, allowsub, denypub, denysub)]
    for subjects in again:
        chance.shuffle(subjects)
    assert template_of_policy(*again) == template_of_policy(allowpub, allowsub, denypub, denysub)


@given(lists, lists, lists)
def test_a_template_grants_what_the_policy_allows_and_never_more(
    allowpub: list[str], allowsub: list[str], denysub: list[str]
) -> None:
    template = template_of_policy(allowpub, allowsub, (), denysub)
    dropped = unenforceable_subscriptions(allowpub, allowsub, denysub)
    kept = set(allowsub) - set(dropped)
    assert set(dropped) <= set(allowsub)
    for subject in SUBJECTS:
        got = granted(template.sub_allow, template.sub_deny, subject) if template.sub_allow else False
        denied = any(covers(one, subject) for one in denysub)
        assert got or denied or not any(covers(one, subject) for one in kept), subject
        assert not got or (not denied and any(covers(one, subject) for one in allowsub)), subject


@pytest.mark.parametrize(
    ("allowpub", "allowsub", "denysub", "dropped"),
    [
        ([], ["a.*"], [], ()),
        ([], ["a.*", "a.*.*"], [], ()),
        ([], ["a.*", "a.>"], [], ()),
        ([], ["a.*", "a.b.c"], [], ("a.*",)),
        ([], ["a.*", "a.b.c"], ["a.*.*.>"], ("a.*",)),
        ([], ["a.*", "a.b.c"], ["a.*.>"], ()),
        ([], ["*"], [], ()),
        (["p"], ["*"], [], ("*",)),
        (["p"], ["*"], ["_INBOX.>"], ()),
        (["p"], ["*.*", "a.*"], [], ("*.*",)),
    ],
)
def test_a_filter_that_nats_cannot_enforce_is_named(
    allowpub: list[str], allowsub: list[str], denysub: list[str], dropped: tuple[str, ...]
) -> None:
    assert unenforceable_subscriptions(allowpub, allowsub, denysub) == dropped
