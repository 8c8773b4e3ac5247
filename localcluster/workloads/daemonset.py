"""DaemonSets: one pod on every node that fits."""

from __future__ import annotations

import os
from typing import ClassVar, Final

from edgefarm.errors import EdgefarmError
from localcluster.client import DAEMON_SETS, NODES, PODS, Json, Resource
from localcluster.informer import Key
from localcluster.workloads.controller import Cluster, Controller, Retry
from localcluster.workloads.placement import daemon_tolerations, may_stay, misfit
from localcluster.workloads.pods import (
    is_active,
    is_controlled_by,
    is_ready,
    pod_from,
    random_suffix,
    template_hash,
)
from localcluster.workloads.rollout import share

_REVISION_LABEL: Final = "controller-revision-hash"


class DaemonSetController(Controller):
    resource: ClassVar[Resource] = DAEMON_SETS
    kind: ClassVar[str] = "DaemonSet"
    owned: ClassVar[tuple[Resource, ...]] = (PODS,)

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._nodes: dict[str, object] = {}
        cluster.informers[NODES].listen(self._observe_node)

    def _observe_node(self, node: Json) -> None:
        # Heartbeats change nothing that matters here.
        name = node["metadata"]["name"]
        alive = ("", name) in self.cluster.informers[NODES].items
        relevant = (node["metadata"].get("labels"), node.get("spec")) if alive else None
        if self._nodes.get(name) != relevant:
            self._nodes[name] = relevant
            self.enqueue_all()

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        daemon_set = await self.client.find(DAEMON_SETS, name, namespace)
        if daemon_set is None or "deletionTimestamp" in daemon_set["metadata"]:
            return
        template = daemon_set["spec"]["template"]
        spec = {**template["spec"], "tolerations": daemon_tolerations(template["spec"])}
        nodes, _ = await self.client.list(NODES)
        fitting = {node["metadata"]["name"] for node in nodes if not misfit(spec, node)}
        staying = {node["metadata"]["name"] for node in nodes if may_stay(spec, node)}
        pods = [pod for pod in (await self.client.list(PODS, namespace))[0] if is_controlled_by(pod, daemon_set)]
        revision = template_hash(template)
        try:
            served = await self._clear(pods, staying)
            await self._place(daemon_set, {**template, "spec": spec}, fitting - served, pods)
            for pod in to_replace(daemon_set["spec"], len(fitting), pods, revision):
                await self._delete(pod)
        finally:
            await self._write_status(daemon_set, fitting, pods, revision)

    async def _clear(self, pods: list[Json], staying: set[str]) -> set[str]:
        """Delete pods on nodes where they must not stay, double ones and those that are over; the nodes served."""
        served: set[str] = set()
        for pod in pods:
            node = pod["spec"].get("nodeName")
            if not is_active(pod) or node not in staying or node in served:
                await self._delete(pod)
            served.add(node)
        return served

    async def _place(self, daemon_set: Json, template: Json, missing: set[str], pods: list[Json]) -> None:
        """Create a pod on each of these nodes, and add it to `pods`."""
        metadata, labels = daemon_set["metadata"], {_REVISION_LABEL: template_hash(daemon_set["spec"]["template"])}
        for node in sorted(missing):
            name = f"{metadata['name'][:57]}-{random_suffix(os.urandom(5))}"
            pod = pod_from(template, daemon_set, name, labels)
            pod["spec"]["nodeName"] = node
            try:
                pods.append(await self.client.create(PODS, pod, metadata["namespace"]))
            except EdgefarmError as error:
                message = f"Error creating: {error}"
                await self.cluster.recorder.record(daemon_set, "FailedCreate", message, warning=True)
                raise Retry from error

    async def _delete(self, pod: Json) -> None:
        metadata = pod["metadata"]
        if "deletionTimestamp" not in metadata:
            await self.client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])

    async def _write_status(self, daemon_set: Json, fitting: set[str], pods: list[Json], revision: str) -> None:
        metadata, present = daemon_set["metadata"], daemon_set.get("status", {})
        right = [pod for pod in pods if is_active(pod) and pod["spec"].get("nodeName") in fitting]
        ready = sum(map(is_ready, right))
        status = {
            "desiredNumberScheduled": len(fitting),
            "currentNumberScheduled": len(right),
            "numberMisscheduled": sum(is_active(pod) for pod in pods) - len(right),
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(fitting) - ready,
            "updatedNumberScheduled": sum(pod["metadata"]["labels"].get(_REVISION_LABEL) == revision for pod in right),
            "observedGeneration": metadata.get("generation", 0),
        }
        if any(present.get(field, 0) != value for field, value in status.items()):
            await self.client.patch(
                DAEMON_SETS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )


def to_replace(spec: Json, wanted: int, pods: list[Json], revision: str) -> list[Json]:
    """The outdated pods that a rolling update deletes now: those that serve nobody, and ready ones while few are away.

    How many of the `wanted` pods may be away is `maxUnavailable`; surging, which needs 0 there, is not done.
    """
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return []
    allowed = share((strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1), wanted, up=True) or 1
    outdated = [pod for pod in pods if is_active(pod) and pod["metadata"]["labels"].get(_REVISION_LABEL) != revision]
    away = wanted - sum(map(is_ready, pods))
    ready = [pod for pod in outdated if is_ready(pod)]
    return [pod for pod in outdated if not is_ready(pod)] + ready[: max(0, allowed - away)]
