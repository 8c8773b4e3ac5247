"""Scheduler: binds pods to the fitting node with the fewest pods of the same controller, then the fewest pods."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import ClassVar

from localcluster.client import NODES, PODS, Json, Resource
from localcluster.events import timestamp
from localcluster.informer import Key
from localcluster.workloads.controller import Cluster, Controller, Retry
from localcluster.workloads.placement import is_node_ready, misfit
from localcluster.workloads.pods import condition, phase, with_condition


class Scheduler(Controller):
    resource: ClassVar[Resource] = PODS
    kind: ClassVar[str] = "Pod"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        #: Bound by us, but perhaps not yet seen as bound: counts, so that a burst of pods spreads.
        self._bound: dict[str, str] = {}

    def enqueue(self, key: Key) -> None:
        pod = self.cluster.informers[PODS].items.get(key)
        if pod is not None and _needs_node(pod):
            super().enqueue(key)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        pod = await self.client.find(PODS, name, namespace)
        if pod is None or not _needs_node(pod):
            return
        nodes, _ = await self.client.list(NODES)
        now = datetime.now(UTC)
        reasons = {node["metadata"]["name"]: _problem(pod, node, now) for node in nodes}
        fitting = [node for node, reason in reasons.items() if not reason]
        if not fitting:
            await self._explain(pod, list(reasons.values()))
            raise Retry(1.0)
        siblings, pods = self._load(pod)
        node = min(sorted(fitting), key=lambda candidate: (siblings[candidate], pods[candidate]))
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._bound[metadata["uid"]] = node
        await self.client.create(PODS, binding, namespace, name=name, subresource="binding")
        await self.cluster.recorder.record(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    def _load(self, pod: Json) -> tuple[Counter[str], Counter[str]]:
        """Per node: the pods with the same controller, and all pods."""
        alive = [entry for entry in self.cluster.informers[PODS].items.values() if not _is_over(entry)]
        unbound = {entry["metadata"]["uid"] for entry in alive if not entry["spec"].get("nodeName")}
        self._bound = {uid: node for uid, node in self._bound.items() if uid in unbound}
        siblings, pods = Counter[str](), Counter[str]()
        for entry in alive:
            node = entry["spec"].get("nodeName") or self._bound.get(entry["metadata"]["uid"], "")
            pods[node] += 1
            siblings[node] += _controller_uid(entry) == _controller_uid(pod) != ""
        return siblings, pods

    async def _explain(self, pod: Json, reasons: list[str]) -> None:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(Counter(reasons).items()))
        message = f"0/{len(reasons)} nodes are available: {counts or 'there is no node'}."
        if condition(pod, "PodScheduled").get("message") == message:
            return
        metadata = pod["metadata"]
        entry = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        conditions = with_condition(pod.get("status", {}).get("conditions") or [], entry, timestamp())
        change = {"status": {"conditions": conditions}}
        await self.client.patch(PODS, metadata["name"], change, metadata["namespace"], subresource="status")
        await self.cluster.recorder.record(pod, "FailedScheduling", message, warning=True)


def _needs_node(pod: Json) -> bool:
    spec = pod["spec"]
    ours = spec.get("schedulerName", "default-scheduler") == "default-scheduler" and not spec.get("schedulingGates")
    return ours and not _is_over(pod) and not spec.get("nodeName")


def _is_over(pod: Json) -> bool:
    return phase(pod) in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]


def _controller_uid(pod: Json) -> str:
    references = pod["metadata"].get("ownerReferences") or []
    return next((str(entry["uid"]) for entry in references if entry.get("controller")), "")


def _problem(pod: Json, node: Json, now: datetime) -> str:
    return misfit(pod["spec"], node) or ("" if is_node_ready(node, now) else "node(s) were not ready")
