"""Conditions and status writes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconciler.ports import NETWORK, Object
from reconciler.status import Condition, find_condition, merge_patch, set_conditions, write_status
from tests.runtime.fakes import FakeKube

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
READY = Condition("Ready", "True", "Reconciled", "All is well.")


def network(**status: object) -> Object:
    return {
        "apiVersion": NETWORK.api_version,
        "kind": "Network",
        "metadata": {"namespace": "network", "name": "foo", "generation": 3},
        **({"status": dict(status)} if status else {}),
    }


def test_a_new_condition_has_all_standard_fields() -> None:
    assert set_conditions(network(), [READY], now=NOW) == [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-31T12:00:00Z",
            "reason": "Reconciled",
            "message": "All is well.",
        }
    ]


def test_the_transition_time_moves_only_when_the_status_changes() -> None:
    before = set_conditions(network(), [READY], now=NOW)
    later = NOW + timedelta(hours=1)
    reworded = Condition("Ready", "True", "Reconciled", "All is very well.")
    (same,) = set_conditions(network(conditions=before), [reworded], now=later)
    assert (same["lastTransitionTime"], same["message"]) == ("2026-01-31T12:00:00Z", "All is very well.")
    worse = Condition("Ready", "False", "VaultUnavailable", "Vault is away.")
    (changed,) = set_conditions(network(conditions=before), [worse], now=later)
    assert changed["lastTransitionTime"] == "2026-01-31T13:00:00Z"


def test_conditions_of_others_stay_where_they_are() -> None:
    foreign = {"type": "Foreign", "status": "True"}
    obj = network(conditions=[foreign])
    conditions = set_conditions(obj, [READY], now=NOW)
    assert [condition["type"] for condition in conditions] == ["Foreign", "Ready"]
    assert find_condition(network(conditions=conditions), "Foreign") == foreign
    assert find_condition(network(), "Ready") is None


def test_a_merge_patch_holds_only_the_differences() -> None:
    old = {"same": 1, "gone": 2, "list": [1], "inner": {"a": 1, "b": 2}}
    new = {"same": 1, "list": [1, 2], "inner": {"a": 1, "b": 3}, "new": {"c": 4}}
    assert merge_patch(old, new) == {"gone": None, "list": [1, 2], "inner": {"b": 3}, "new": {"c": 4}}
    assert merge_patch(old, old) == {}


async def test_a_status_is_written_once_and_a_second_pass_writes_nothing() -> None:
    kube = FakeKube()
    await kube.create(NETWORK, network())
    status = {"account": "A", "conditions": set_conditions(network(), [READY], now=NOW)}
    obj = await kube.get(NETWORK, "network", "foo")
    assert obj is not None
    assert await write_status(kube, NETWORK, obj, status)
    obj = await kube.get(NETWORK, "network", "foo")
    assert obj is not None
    assert obj["status"] == status
    writes = kube.writes
    again = {"account": "A", "conditions": set_conditions(obj, [READY], now=NOW + timedelta(days=1))}
    assert not await write_status(kube, NETWORK, obj, again)
    assert kube.writes == writes


async def test_a_status_member_that_is_no_longer_observed_disappears() -> None:
    kube = FakeKube()
    obj = await kube.create(NETWORK, network(account="A", grants=2))
    await write_status(kube, NETWORK, obj, {"account": "A"})
    stored = await kube.get(NETWORK, "network", "foo")
    assert stored is not None
    assert stored["status"] == {"account": "A"}


async def test_an_object_that_has_gone_meanwhile_needs_no_status() -> None:
    kube = FakeKube()
    obj = await kube.create(NETWORK, network())
    await kube.delete(NETWORK, "network", "foo")
    assert not await write_status(kube, NETWORK, obj, {"account": "A"})
