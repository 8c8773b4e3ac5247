"""Which peer carries a prefix, and where it is probed: tables and properties."""

from __future__ import annotations

import base64
from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abbot.carrying import Carrier, carried, key_bytes, probe_address
from edgefarm.errors import InvalidMessage

GATEWAY_1 = Carrier("g1", ("10.0.0.0/16", "10.96.0.0/12"), always=True)
GATEWAY_2 = Carrier("g2", ("10.0.0.0/16", "10.96.0.0/12"), always=True)
DIRECT = Carrier("d", ("10.0.0.7/32",), always=False)
OTHER_DIRECT = Carrier("e", ("10.0.0.7/32",), always=False)
BLOCKS = GATEWAY_1.allowed


@pytest.mark.parametrize(
    ("peers", "alive", "expected"),
    [
        ([], set(), {}),
        ([GATEWAY_1, GATEWAY_2], set(), {"g1": BLOCKS, "g2": ()}),
        ([GATEWAY_1, GATEWAY_2], {"g1", "g2"}, {"g1": BLOCKS, "g2": ()}),
        ([GATEWAY_1, GATEWAY_2], {"g2"}, {"g1": (), "g2": BLOCKS}),
        ([GATEWAY_1, DIRECT], {"g1"}, {"g1": BLOCKS, "d": ()}),
        ([GATEWAY_1, DIRECT], {"g1", "d"}, {"g1": BLOCKS, "d": ("10.0.0.7/32",)}),
        ([DIRECT, OTHER_DIRECT], {"d", "e"}, {"d": ("10.0.0.7/32",), "e": ()}),
        ([DIRECT, OTHER_DIRECT], {"e"}, {"d": (), "e": ("10.0.0.7/32",)}),
        ([DIRECT, Carrier("a", DIRECT.allowed, always=True)], set(), {"d": (), "a": DIRECT.allowed}),
        ([Carrier("a", DIRECT.allowed, always=True), DIRECT], {"d"}, {"a": (), "d": DIRECT.allowed}),
        ([GATEWAY_1], {"stranger"}, {"g1": BLOCKS}),
        ([Carrier("r", ("10.0.0.0/8", "10.0.0.0/8"), always=True)], set(), {"r": ("10.0.0.0/8",)}),
    ],
)
def test_the_first_live_peer_carries_a_prefix_else_the_first_that_is_always_used(
    peers: list[Carrier], alive: set[str], expected: dict[str, tuple[str, ...]]
) -> None:
    assert carried(peers, alive) == expected


prefixes = st.sampled_from(["10.0.0.0/16", "10.0.1.0/24", "10.0.0.1/32", "::/0", "fd00::/64"])
peer_lists = st.lists(
    st.builds(Carrier, st.sampled_from("abcdefgh"), st.lists(prefixes, max_size=4).map(tuple), st.booleans()),
    unique_by=lambda peer: peer.public_key,
)
alive_sets = st.frozensets(st.sampled_from("abcdefgh"))


@given(peer_lists, alive_sets)
def test_every_prefix_is_carried_by_the_best_peer_that_lists_it_and_by_no_other(
    peers: list[Carrier], alive: frozenset[str]
) -> None:
    result = carried(peers, alive)
    assert list(result) == [peer.public_key for peer in peers]
    for prefix in {prefix for peer in peers for prefix in peer.allowed}:
        listed = [peer for peer in peers if prefix in peer.allowed]
        best = [peer for peer in listed if peer.public_key in alive] or [peer for peer in listed if peer.always]
        assert [key for key, allowed in result.items() if prefix in allowed] == [peer.public_key for peer in best[:1]]
    for allowed in result.values():
        assert len(set(allowed)) == len(allowed)


@given(st.binary(min_size=32, max_size=32))
def test_a_probe_address_is_link_local_and_follows_from_the_key(raw: bytes) -> None:
    key = base64.b64encode(raw).decode()
    address = IPv6Address(probe_address(key))
    assert address in IPv6Network("fe80::/64")
    assert probe_address(key) == str(address)


def test_a_probe_address_never_changes() -> None:
    assert probe_address(base64.b64encode(bytes(32)).decode()) == "fe80::6668:7aad:f862:bd77"


@pytest.mark.parametrize("key", ["", "AAAA", "not base64!", "ä" * 44, "A" * 44, "A" * 42 + "B=", "A" * 43])
def test_what_is_no_key_is_refused_and_not_repeated(key: str) -> None:
    for refuse in (key_bytes, probe_address):
        with pytest.raises(InvalidMessage) as error:
            refuse(key)
        assert not key or key not in str(error.value)
