"""What is said about pods in states that only a kubelet brings about."""

from __future__ import annotations

from typing import Any

import pytest

from cli.doctor.pod import PodFacts, check_pod
from edgefarm import names
from edgefarm.findings import Code, Finding, Status


def pod(*, sidecar: bool = True, phase: str = "Running", status: dict[str, Any] | None = None, **metadata: Any) -> Any:
    """A labelled pod; `status` is that of the sidecar's container."""
    containers = [{"name": names.SIDECAR_CONTAINER}] if sidecar else []
    statuses = [{"name": names.SIDECAR_CONTAINER, "image": "sidecar:1", **status}] if status else []
    return {
        "metadata": {"name": "a", "labels": {names.LABEL_NETWORK: "plant"}, **metadata},
        "spec": {"initContainers": containers, "containers": [{"name": "app"}]},
        "status": {"phase": phase, "initContainerStatuses": statuses},
    }


def last(facts: PodFacts) -> Finding:
    return check_pod(facts)[-1]


def test_a_pod_that_opted_out_is_reminded_of_its_annotation() -> None:
    found = last(PodFacts("f/a", pod(sidecar=False, annotations={names.ANNOTATION_INJECT: "false"})))
    assert found.code == Code.POD_NOT_INJECTED
    assert names.ANNOTATION_INJECT in found.message


@pytest.mark.parametrize(
    ("created", "says"),
    [("2026-01-01T00:00:00Z", "before the webhook was registered"), ("2026-03-01T00:00:00Z", "was not asked")],
)
def test_a_pod_without_sidecar_is_told_whether_it_is_older_than_the_webhook(created: str, says: str) -> None:
    facts = PodFacts("f/a", pod(sidecar=False, creationTimestamp=created), registered_at="2026-02-01T00:00:00Z")
    assert says in last(facts).message


def test_a_pod_that_is_not_scheduled_is_told_what_the_newest_event_says() -> None:
    found = last(PodFacts("f/a", pod(phase="Pending"), warnings=("FailedMount: old", "FailedScheduling: no node")))
    assert found.code == Code.SIDECAR_NOT_STARTED
    assert found.message.endswith("the pod is Pending; an Event says: FailedScheduling: no node")


def test_a_pod_that_has_ended_needs_no_sidecar() -> None:
    found = check_pod(PodFacts("f/a", pod(phase="Succeeded", status={"state": {"terminated": {"exitCode": 0}}})))
    assert {each.status for each in found} == {Status.OK}


def test_a_container_that_crashes_is_told_in_the_words_of_its_state() -> None:
    state = {"state": {"terminated": {"reason": "OOMKilled", "message": "too much"}}}
    assert "OOMKilled: too much" in last(PodFacts("f/a", pod(status=state))).message
