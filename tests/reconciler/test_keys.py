"""Which versions of a key are valid, and when a new one is due."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefarm.vault import KeyVersion, TransitKey
from reconciler.desired.keys import KeyOrders, KeySchedule, plan_key
from tests.reconciler.objects import NOW

SCHEDULE = KeySchedule(rotate_every=timedelta(days=90), overlap=timedelta(days=31))


def days(count: float) -> datetime:
    """So many days ago."""
    return NOW - timedelta(days=count)


def key(*ages: float) -> TransitKey:
    """A key whose versions were made so many days ago."""
    versions = {number: KeyVersion(bytes([number]) * 32, days(age)) for number, age in enumerate(ages, 1)}
    return TransitKey("policy.foo.factory.sensor", len(ages), versions)


@pytest.mark.parametrize(
    ("ages", "orders", "active", "rotate"),
    [
        ([0], KeyOrders(), (1,), False),
        ([89], KeyOrders(), (1,), False),
        ([90], KeyOrders(), (1,), True),
        ([100, 10], KeyOrders(), (1, 2), False),
        ([100, 31], KeyOrders(), (2,), False),
        ([100, 20, 10], KeyOrders(), (1, 2, 3), False),
        ([5], KeyOrders(rotate_at=days(1)), (1,), True),
        ([5, 1], KeyOrders(rotate_at=days(2)), (1, 2), False),
        ([5], KeyOrders(rotate_at=days(-1)), (1,), False),
        ([5, 1], KeyOrders(revoke_before=days(2)), (2,), False),
        ([5], KeyOrders(revoke_before=days(2)), (), True),
        ([5], KeyOrders(revoke_before=days(-1)), (1,), False),
    ],
)
def test_versions_are_valid_for_the_overlap_and_rotate_when_due(
    ages: list[float], orders: KeyOrders, active: tuple[int, ...], rotate: bool
) -> None:
    plan = plan_key(key(*ages), orders, SCHEDULE, NOW)
    assert (plan.active, plan.rotate) == (active, rotate)


@pytest.mark.parametrize(
    ("ages", "orders", "in_days"),
    [
        ([0], KeyOrders(), 90),
        ([100, 10], KeyOrders(), 21),
        ([0], KeyOrders(rotate_at=days(-3)), 3),
        ([0], KeyOrders(revoke_before=days(-2), rotate_at=days(-3)), 2),
    ],
)
def test_it_is_looked_at_again_when_the_answer_changes(ages: list[float], orders: KeyOrders, in_days: int) -> None:
    assert plan_key(key(*ages), orders, SCHEDULE, NOW).look_again == NOW + timedelta(days=in_days)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(0, 400), st.integers(0, 400))
def test_the_answer_holds_until_it_is_looked_at_again(ages: list[int], rotate_at: int, revoke: int) -> None:
    subject = key(*sorted(ages, reverse=True))
    orders = KeyOrders(rotate_at=days(rotate_at - 200), revoke_before=days(revoke - 200))
    plan = plan_key(subject, orders, SCHEDULE, NOW)
    if plan.rotate:
        return
    assert subject.latest_version in plan.active
    assert plan.look_again > NOW
    just_before = plan_key(subject, orders, SCHEDULE, plan.look_again - timedelta(seconds=1))
    assert (just_before.active, just_before.rotate) == (plan.active, False)
    after = plan_key(subject, orders, SCHEDULE, plan.look_again)
    # A revocation that comes true may have been preceded by nothing that it revokes.
    assert (after.active, after.rotate) != (plan.active, False) or plan.look_again in (
        orders.rotate_at,
        orders.revoke_before,
    )


@given(st.lists(st.integers(0, 400), min_size=1, max_size=6), st.integers(0, 400), st.integers(0, 400))
def test_a_rotation_is_enough(ages: list[int], rotate_at: int, revoke: int) -> None:
    orders = KeyOrders(rotate_at=days(rotate_at), revoke_before=days(revoke))
    rotated = key(*sorted(ages, reverse=True), 0)
    plan = plan_key(rotated, orders, SCHEDULE, NOW)
    assert not plan.rotate
    assert rotated.latest_version in plan.active
