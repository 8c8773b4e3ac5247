"""What a pod's status says, as a plain function of what its containers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localcluster.client import Json
from localcluster.node.container import ContainerView
from localcluster.node.sources import PodFacts


@dataclass(frozen=True)
class PodView:
    """What the node knows of a pod at one moment."""

    facts: PodFacts
    start_time: str
    init: Sequence[ContainerView]
    main: Sequence[ContainerView]
    initialized: bool
    outcome: str
    """`Succeeded` or `Failed` once the pod is over, else empty."""


def pod_status(pod: Json, view: PodView, now: str) -> Json:
    """The status of `pod`; conditions keep the transition times of its present status, foreign ones stay."""
    sidecars = {entry["name"] for entry in pod["spec"].get("initContainers") or [] if _is_sidecar(entry)}
    return {
        "phase": _phase(view),
        "startTime": view.start_time,
        "hostIP": view.facts.host_ip,
        "hostIPs": [{"ip": view.facts.host_ip}],
        "podIP": view.facts.pod_ip,
        "podIPs": [{"ip": view.facts.pod_ip}],
        "conditions": _conditions(pod, view, sidecars, now),
        "initContainerStatuses": [
            _container_status(entry, ready=entry.ready if entry.name in sidecars else entry.exit_code == 0)
            for entry in view.init
        ],
        "containerStatuses": [_container_status(entry, ready=entry.ready) for entry in view.main],
    }


def _is_sidecar(container: Json) -> bool:
    return bool(container.get("restartPolicy") == "Always")


def _phase(view: PodView) -> str:
    if view.outcome:
        return view.outcome
    began = all("waiting" not in entry.state or entry.last_state for entry in view.main)
    return "Running" if view.initialized and began else "Pending"


def _conditions(pod: Json, view: PodView, sidecars: set[str], now: str) -> list[Json]:
    waiting = [entry.name for entry in view.main if not entry.ready]
    waiting += [entry.name for entry in view.init if entry.name in sidecars and not entry.ready]
    present = {entry["type"]: entry for entry in pod.get("status", {}).get("conditions") or []}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or []]
    open_gates = [gate for gate in gates if present.get(gate, {}).get("status") != "True"]
    if view.outcome:
        unready = ("PodCompleted" if view.outcome == "Succeeded" else "PodFailed", "")
    else:
        unready = ("ContainersNotReady", f"containers with unready status: [{' '.join(waiting)}]")
    problems: dict[str, tuple[str, str] | None] = {
        "PodScheduled": None,
        "Initialized": None if view.initialized else ("ContainersNotInitialized", "init containers have not finished"),
        "ContainersReady": unready if waiting or view.outcome else None,
    }
    gate_problem = ("ReadinessGatesNotReady", f"conditions not True: {' '.join(open_gates)}") if open_gates else None
    problems["Ready"] = problems["ContainersReady"] or gate_problem
    conditions = [entry for kind, entry in present.items() if kind not in problems]
    for kind, problem in problems.items():
        entry: Json = {"type": kind, "status": "False" if problem else "True"}
        if problem:
            entry |= {"reason": problem[0], "message": problem[1]}
        before = present.get(kind, {})
        entry["lastTransitionTime"] = before["lastTransitionTime"] if before.get("status") == entry["status"] else now
        conditions.append(entry)
    return conditions


def _container_status(view: ContainerView, *, ready: bool) -> Json:
    return {
        "name": view.name,
        "image": view.image,
        "imageID": "",
        "containerID": view.container_id,
        "state": view.state,
        "lastState": view.last_state,
        "restartCount": view.restarts,
        "ready": ready,
        "started": view.started,
    }
