"""Direct partners: mutual, few, and hardly disturbed by a host that joins or leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.mesh.partners import Partners

NAMES = st.sets(st.integers(0, 200).map(lambda number: f"edge-{number}"), max_size=40)


def ring(devices: set[str] | list[str]) -> Partners:
    made = Partners()
    for device in devices:
        made.add(device)
    return made


@given(NAMES, st.integers(0, 17))
def test_partners_are_mutual_and_never_more_than_allowed(devices: set[str], most: int) -> None:
    made = ring(devices)
    partners = {device: made.of(device, most) for device in devices}
    for device, others in partners.items():
        assert len(others) <= most
        assert device not in others
        assert list(others) == sorted(set(others))
        assert all(device in partners[other] for other in others)


@given(NAMES, st.integers(0, 17))
def test_all_are_partners_while_there_are_few(devices: set[str], most: int) -> None:
    made = ring(devices)
    if len(devices) <= most + 1:
        assert all(set(made.of(device, most)) == devices - {device} for device in devices)
    else:
        assert all(len(made.of(device, most)) == most - most % 2 for device in devices)


@given(NAMES, st.integers(0, 8).map(lambda half: 2 * half))
def test_one_that_joins_changes_nobody_but_its_own_partners(devices: set[str], most: int) -> None:
    made = ring(devices)
    before = {device: made.of(device, most) for device in devices}
    made.add("joining")
    changed = {device for device in devices if made.of(device, most) != before[device]}
    assert changed == set(made.of("joining", most))
    made.remove("joining")
    assert {device: made.of(device, most) for device in devices} == before


@given(st.lists(st.integers(0, 60).map(str), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_joining_does_not_count(devices: list[str], random: object) -> None:
    shuffled = list(devices)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = ring(devices), ring(shuffled)
    assert [one.of(device, 4) for device in devices] == [other.of(device, 4) for device in devices]


@pytest.mark.parametrize("most", [0, 16])
def test_a_device_that_was_not_added_has_no_partners(most: int) -> None:
    made = ring(["edge-1", "edge-2"])
    made.remove("edge-3")
    assert made.of("edge-3", most) == ()
    assert len(made) == 2
