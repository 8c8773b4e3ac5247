"""The recorder of Events against a Kubernetes in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from edgefarm.errors import KubernetesUnavailable
from reconciler.events import EventLimits, EventRecorder
from reconciler.ports import EVENT, Object
from tests.runtime.fakes import LOG, FakeKube, configmap

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def limits() -> EventLimits:
    return EventLimits(burst=3)


@pytest.fixture
async def recorder(kube: FakeKube, limits: EventLimits) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(kube, "controller-0", clock=lambda: NOW, log=LOG, limits=limits)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def written(kube: FakeKube, recorder: EventRecorder) -> list[Object]:
    await recorder.drained()
    return (await kube.list(EVENT))[0]


async def test_an_event_says_what_about_what_and_by_whom(kube: FakeKube, recorder: EventRecorder) -> None:
    about = configmap("a", v="secret data stays out")
    about["metadata"]["uid"] = "u-1"
    recorder.warning(about, "Bad", "It is bad.")
    (event,) = await written(kube, recorder)
    metadata = event.pop("metadata")
    assert metadata["namespace"] == "network"
    assert metadata["name"].startswith("a.")
    assert event == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "type": "Warning",
        "reason": "Bad",
        "action": "Reconcile",
        "note": "It is bad.",
        "regarding": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": "network", "name": "a", "uid": "u-1"},
        "reportingController": "network.edgefarm.io",
        "reportingInstance": "controller-0",
        "eventTime": "2026-01-31T12:00:00.000000Z",
    }


async def test_events_about_cluster_scoped_objects_are_kept_in_the_default_namespace(
    kube: FakeKube, recorder: EventRecorder
) -> None:
    recorder.normal({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}, "Seen", "It is there.")
    (event,) = await written(kube, recorder)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]


async def test_a_repeat_is_not_written_while_it_is_fresh(kube: FakeKube, recorder: EventRecorder) -> None:
    for _ in range(10):
        recorder.warning(configmap("a"), "Bad", "It is bad.")
    assert len(await written(kube, recorder)) == 1
    assert kube.writes == 1


@pytest.mark.parametrize("limits", [EventLimits(quiet=0)])
async def test_later_repeats_are_counted_in_one_series(kube: FakeKube, recorder: EventRecorder) -> None:
    for _ in range(3):
        recorder.warning(configmap("a"), "Bad", "It is bad.")
        await recorder.drained()
    (event,) = await written(kube, recorder)
    assert event["series"] == {"count": 3, "lastObservedTime": "2026-01-31T12:00:00.000000Z"}


@pytest.mark.parametrize("limits", [EventLimits(quiet=0)])
async def test_a_series_whose_event_kubernetes_has_deleted_begins_anew(kube: FakeKube, recorder: EventRecorder) -> None:
    recorder.warning(configmap("a"), "Bad", "It is bad.")
    (event,) = await written(kube, recorder)
    await kube.delete(EVENT, "network", event["metadata"]["name"])
    for _ in range(2):
        recorder.warning(configmap("a"), "Bad", "It is bad.")
        await recorder.drained()
    assert len(await written(kube, recorder)) == 1


async def test_a_flood_about_one_object_is_cut_and_other_objects_are_still_heard(
    kube: FakeKube, recorder: EventRecorder
) -> None:
    for number in range(20):
        recorder.warning(configmap("a"), "Bad", f"Problem {number}.")
    recorder.warning(configmap("b"), "Bad", "Another one.")
    events = await written(kube, recorder)
    assert sorted(event["regarding"]["name"] for event in events) == ["a", "a", "a", "b"]


async def test_an_unreachable_kubernetes_never_reaches_the_caller_and_the_next_repeat_is_written(
    kube: FakeKube, recorder: EventRecorder
) -> None:
    kube.fail["create"] = KubernetesUnavailable("no route")
    recorder.warning(configmap("a"), "Bad", "It is bad.")
    assert await written(kube, recorder) == []
    del kube.fail["create"]
    recorder.warning(configmap("a"), "Bad", "It is bad.")
    assert len(await written(kube, recorder)) == 1


async def test_a_long_message_and_a_long_name_are_cut_to_what_kubernetes_takes(
    kube: FakeKube, recorder: EventRecorder
) -> None:
    recorder.warning(configmap("a" * 253), "Bad", "x" * 2000)
    (event,) = await written(kube, recorder)
    assert len(event["note"]) == 1024
    assert len(event["metadata"]["name"]) == 253
