"""Decides about the versions of a scoped signing key: which are valid, and when a new one is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgefarm import names
from edgefarm.api.reading import read_time
from edgefarm.errors import InvalidResource
from edgefarm.vault import TransitKey


@dataclass(frozen=True)
class KeyOrders:
    """What a user asked for by annotations on a Policy or EdgeNetwork: rotate a key made before, invalidate versions
    made before."""

    rotate_at: datetime | None = None
    revoke_before: datetime | None = None


@dataclass(frozen=True)
class KeySchedule:
    """When a key rotates, and how long its previous version stays valid after that."""

    rotate_every: timedelta
    overlap: timedelta


@dataclass(frozen=True)
class KeyPlan:
    """What to do with a key now. `active` versions belong into the account, the last of them signs.

    `look_again` is when this answer changes by itself.
    """

    active: tuple[int, ...]
    rotate: bool
    look_again: datetime


def orders_of(annotations: Mapping[str, str]) -> tuple[KeyOrders, str]:
    """What the annotations ask for, and what is wrong with those that are therefore ignored (empty: nothing)."""
    problems: list[str] = []

    def time(annotation: str) -> datetime | None:
        value = annotations.get(annotation)
        try:
            return None if value is None else read_time(value, f"metadata.annotations[{annotation}]")
        except InvalidResource as error:
            problems.append(str(error))
            return None

    orders = KeyOrders(time(names.ANNOTATION_ROTATE_KEYS_AT), time(names.ANNOTATION_REVOKE_KEYS_BEFORE))
    return orders, "; ".join(problems)


def plan_key(key: TransitKey, orders: KeyOrders, schedule: KeySchedule, now: datetime) -> KeyPlan:
    """Which versions are valid at `now`: the latest, and older ones for the overlap after their successor was made.

    An order takes effect when its time has come. A rotation is due as well when the latest version was revoked or is as
    old as the schedule allows.
    """
    changes: list[datetime] = []
    revoked_before = _reached(orders.revoke_before, now, changes)
    rotate_at = _reached(orders.rotate_at, now, changes)
    numbers = sorted(key.versions)
    active: list[int] = []
    for number, successor in zip(numbers, [*numbers[1:], None], strict=True):
        created = key.versions[number].created
        if revoked_before is not None and created < revoked_before:
            continue
        if successor is not None:
            end = key.versions[successor].created + schedule.overlap
            if end <= now:
                continue
            changes.append(end)
        active.append(number)
    due = key.latest.created + schedule.rotate_every
    changes.append(due)
    asked_for = rotate_at is not None and key.latest.created < rotate_at
    rotate = asked_for or due <= now or key.latest_version not in active
    return KeyPlan(tuple(active), rotate, min((time for time in changes if time > now), default=now))


def _reached(time: datetime | None, now: datetime, changes: list[datetime]) -> datetime | None:
    if time is not None and time > now:
        changes.append(time)
        return None
    return time
