"""Which network a Policy belongs to, and which service accounts it gets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.api.policy import Policy
from reconciler.desired.membership import Reason, assign, assign_stream, share_accounts
from reconciler.desired.resources import FoundEdgeNetwork, FoundNetwork, FoundPolicy, FoundStream
from tests.reconciler.objects import NOW, copy_of_default, deleting, edge_network, network, policy, stream

FOO = network("foo", ["factory", "office"])
BAR = network("bar", ["office"])


def verdict(subject: dict[str, Any], *networks: dict[str, Any]) -> tuple[str, str | None, str]:
    found = {each.name: each for each in map(FoundNetwork.read, networks)}
    answer = assign(FoundPolicy.read(subject), found, "network")
    return answer.reason, answer.network, answer.message


@pytest.mark.parametrize(
    ("subject", "networks", "reason", "belongs_to", "words"),
    [
        (policy(network="foo"), [FOO], Reason.ACCEPTED, "foo", "belongs to network 'foo'"),
        (policy(), [FOO, BAR], Reason.ACCEPTED, "foo", "belongs to network 'foo'"),
        (policy(network="nix"), [FOO], Reason.NETWORK_NOT_FOUND, None, "there is no network 'nix'"),
        (policy(namespace="lab", network="foo"), [FOO], Reason.NAMESPACE_NOT_IN_NETWORK, None, "does not list"),
        (policy(namespace="office"), [FOO, BAR], Reason.NETWORK_AMBIGUOUS, None, "the networks 'bar' and 'foo'"),
        (policy(namespace="office", network="bar"), [FOO, BAR], Reason.ACCEPTED, "bar", "belongs to"),
        (policy(namespace="lab"), [FOO, BAR], Reason.NO_NETWORK, None, "no network lists the namespace 'lab'"),
        (policy(allowpub=["a b"]), [FOO], Reason.INVALID_SPEC, None, "spec.allowpub[0]"),
        (policy(allowpub=["a..b"]), [FOO], Reason.INVALID_SPEC, None, "empty token"),
        (policy(allowpub=["a.>.b"]), [FOO], Reason.INVALID_SPEC, None, "'>' in the middle"),
        (policy("with.dot"), [FOO], Reason.INVALID_SPEC, None, "no dots"),
        (policy("x" * 64), [FOO], Reason.INVALID_SPEC, None, "1 to 63"),
        (policy(network="foo"), [deleting(FOO)], Reason.NETWORK_NOT_FOUND, None, "there is no network"),
        (policy(namespace="office"), [FOO, deleting(BAR)], Reason.ACCEPTED, "foo", "belongs to"),
        (
            policy(network="foo"),
            [network("foo", ["factory"], limits={"filestorage": "lots"})],
            Reason.NETWORK_INVALID,
            None,
            "spec.limits.filestorage",
        ),
    ],
)
def test_a_policy_finds_its_network_or_is_told_why_not(
    subject: dict[str, Any], networks: list[dict[str, Any]], reason: Reason, belongs_to: str | None, words: str
) -> None:
    found_reason, found_network, message = verdict(subject, *networks)
    assert (found_reason, found_network) == (reason, belongs_to)
    assert words in message


def test_the_policy_that_a_network_copies_is_a_template_and_no_member() -> None:
    template = policy("basic", "network")
    user = network("foo", ["factory"], defaultNetworkPolicy={"ref": "basic"})
    assert verdict(template, user)[:2] == (Reason.TEMPLATE, None)
    assert verdict(template, FOO)[:2] == (Reason.NO_NETWORK, None)


def test_a_mistake_in_a_key_annotation_does_not_cut_anybody_off() -> None:
    found = FoundPolicy.read(policy(annotations={"network.edgefarm.io/rotate-keys-at": "soon"}))
    assert found.policy is not None
    assert found.policy.rotate_keys_at is None
    assert "rotate-keys-at" in found.annotation_problem


@pytest.mark.parametrize("listed", [["factory"], ["lab"]])
@pytest.mark.parametrize("named", [None, "foo", "bar", "nix"])
def test_a_stream_finds_its_network_as_a_policy_does(listed: list[str], named: str | None) -> None:
    networks = {
        each.name: each for each in map(FoundNetwork.read, (network("foo", ["factory"]), network("bar", listed)))
    }
    spec: dict[str, Any] = {} if named is None else {"network": named}
    assert assign_stream(FoundStream.read(stream(**spec)), networks) == assign(
        FoundPolicy.read(policy(**spec)), networks, "network"
    )


def test_a_stream_or_edge_network_with_a_mistake_is_told_and_known_by_what_it_names() -> None:
    found = FoundStream.read(stream(network="foo", subjects=["a..b"]))
    answer = assign_stream(found, {"foo": FoundNetwork.read(FOO)})
    assert (found.network, answer.reason, answer.network) == ("foo", Reason.INVALID_SPEC, None)
    assert "spec.subjects[0]" in answer.message
    edge = FoundEdgeNetwork.read(edge_network(network="foo", limits={"filestorage": "lots"}))
    assert (edge.network, edge.edge, edge.deleting) == ("foo", None, False)
    assert "spec.limits.filestorage" in edge.problem
    assert FoundEdgeNetwork.read(deleting(edge_network())).deleting


def claims(*policies: dict[str, Any]) -> dict[str, tuple[tuple[str, ...], dict[str, str]]]:
    shared = share_accounts([Policy.parse(obj) for obj in policies], "foo")
    return {name: (each.granted, dict(each.lost)) for (_, name), each in shared.items()}


def test_the_older_policy_keeps_a_service_account_that_two_claim() -> None:
    older = policy("zebra", created=NOW - timedelta(hours=1), serviceAccounts=["shared", "own"])
    younger = policy("ant", serviceAccounts=["shared", "other"])
    assert claims(younger, older) == {
        "zebra": (("own", "shared", "zebra"), {}),
        "ant": (("ant", "other"), {"shared": "zebra"}),
    }


def test_of_two_equally_old_policies_the_first_by_name_keeps_the_account() -> None:
    assert claims(policy("b", serviceAccounts=["x"]), policy("a", serviceAccounts=["x"])) == {
        "a": (("a", "x"), {}),
        "b": (("b",), {"x": "a"}),
    }


def test_the_default_policy_covers_default_unless_a_user_claims_it() -> None:
    assert claims(copy_of_default()) == {"foo": (("default", "foo"), {})}
    old_copy = copy_of_default()
    assert claims(old_copy, policy("sensor", serviceAccounts=["default", "foo"])) == {
        "sensor": (("default", "foo", "sensor"), {}),
        "foo": ((), {}),
    }


def test_the_same_account_name_in_two_namespaces_is_two_accounts() -> None:
    shared = share_accounts([Policy.parse(policy("a", "factory")), Policy.parse(policy("a", "office"))], "foo")
    assert {key: each.granted for key, each in shared.items()} == {("factory", "a"): ("a",), ("office", "a"): ("a",)}


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.lists(st.sampled_from("abcdxy"), max_size=3)),
        unique_by=lambda entry: entry[0],
    ),
    st.randoms(),
)
def test_every_account_has_exactly_one_holder_whatever_the_order(
    entries: list[tuple[str, int, list[str]]], random: Any
) -> None:
    policies = [
        policy(name, created=NOW - timedelta(hours=age), serviceAccounts=accounts) for name, age, accounts in entries
    ]
    first = claims(*policies)
    random.shuffle(policies)
    assert claims(*policies) == first
    wanted = {account for name, _, accounts in entries for account in (name, *accounts)}
    granted = [account for held, _ in first.values() for account in held]
    assert sorted(granted) == sorted(wanted)
    assert all(account in first[holder][0] for _, lost in first.values() for account, holder in lost.items())
