"""Derived names: unambiguous, and refused for what is no DNS label."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm import names
from edgefarm.errors import InvalidName

LABELS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.lists(LABELS, min_size=6, max_size=6))
def test_two_grants_never_share_a_role_a_key_or_a_document(parts: list[str]) -> None:
    first, second = tuple(parts[:3]), tuple(parts[3:])
    for derive in (names.policy_key, names.grant_role, names.access_document):
        assert (derive(*first) == derive(*second)) == (first == second)


@pytest.mark.parametrize("name", ["", "a.b", "A", "-a", "a-", "a" * 64, "ä", "a b", "a\n"])
def test_a_name_that_is_no_dns_label_is_refused_with_what_to_write(name: str) -> None:
    with pytest.raises(InvalidName, match="lower-case letters"):
        names.account_key(name)


def test_the_longest_names_are_usable() -> None:
    longest = "a" * 63
    assert len(names.policy_key(longest, longest, longest)) == 198


def test_prefixes_are_prefixes_of_what_they_select() -> None:
    assert names.policy_key("foo", "ns", "p").startswith(names.policy_key_prefix("foo"))
    assert names.grant_role("foo", "ns", "sa").startswith(names.grant_role_prefix("foo"))
    assert names.access_document("foo", "ns", "sa").startswith(names.access_document_prefix("foo") + "/")
    assert not names.grant_role("foobar", "ns", "sa").startswith(names.grant_role_prefix("foo"))


NODES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?){0,3}", fullmatch=True)


@given(LABELS, NODES)
def test_a_leafs_domain_tells_its_network(network: str, node: str) -> None:
    assert names.network_of_leaf(names.leaf_domain(network, node)) == network
