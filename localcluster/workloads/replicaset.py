"""ReplicaSets: as many pods as wanted."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import ClassVar

from edgefarm.errors import EdgefarmError
from localcluster.client import PODS, REPLICA_SETS, Json, Resource
from localcluster.events import timestamp
from localcluster.informer import Key
from localcluster.workloads.controller import Controller, Retry
from localcluster.workloads.pods import (
    is_active,
    is_controlled_by,
    is_ready,
    phase,
    pod_from,
    random_suffix,
    seconds_until_available,
    with_condition,
)


class ReplicaSetController(Controller):
    resource: ClassVar[Resource] = REPLICA_SETS
    kind: ClassVar[str] = "ReplicaSet"
    owned: ClassVar[tuple[Resource, ...]] = (PODS,)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        replica_set = await self.client.find(REPLICA_SETS, name, namespace)
        if replica_set is None or "deletionTimestamp" in replica_set["metadata"]:
            return
        pods = [
            pod
            for pod in (await self.client.list(PODS, namespace))[0]
            if is_controlled_by(pod, replica_set) and is_active(pod)
        ]
        failure = ""
        missing = replica_set["spec"].get("replicas", 1) - len(pods)
        if missing > 0:
            failure = await self._create(replica_set, missing, pods)
        elif missing < 0:
            for pod in sorted(pods, key=_worth)[:-missing]:
                await self.client.delete(PODS, pod["metadata"]["name"], namespace, uid=pod["metadata"]["uid"])
                pods.remove(pod)
        wait = await self._write_status(replica_set, pods, failure)
        if failure:
            raise Retry
        if wait:
            raise Retry(wait)

    async def _create(self, replica_set: Json, count: int, pods: list[Json]) -> str:
        """Create pods and add them to `pods`; what the API server said when it refused one."""
        metadata = replica_set["metadata"]
        for _ in range(count):
            name = f"{metadata['name'][:57]}-{random_suffix(os.urandom(5))}"
            pod = pod_from(replica_set["spec"]["template"], replica_set, name)
            try:
                pods.append(await self.client.create(PODS, pod, metadata["namespace"]))
            except EdgefarmError as error:
                message = f"Error creating: {error}"
                await self.cluster.recorder.record(replica_set, "FailedCreate", message, warning=True)
                return message
        return ""

    async def _write_status(self, replica_set: Json, pods: list[Json], failure: str) -> float:
        """Write what was seen; the seconds until a ready pod becomes available, or 0."""
        metadata, present = replica_set["metadata"], replica_set.get("status", {})
        now = datetime.now(UTC)
        minimum = replica_set["spec"].get("minReadySeconds", 0)
        waits = [seconds_until_available(pod, minimum, now) for pod in pods]
        template_labels = replica_set["spec"]["template"].get("metadata", {}).get("labels") or {}
        conditions = [entry for entry in present.get("conditions") or [] if entry["type"] != "ReplicaFailure"]
        if failure:
            entry = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}
            conditions = with_condition(present.get("conditions") or [], entry, timestamp(now))
        status = {
            "replicas": len(pods),
            "fullyLabeledReplicas": sum(
                template_labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods
            ),
            "readyReplicas": sum(map(is_ready, pods)),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": metadata.get("generation", 0),
            "conditions": conditions,
        }
        if any(present.get(field, [] if field == "conditions" else 0) != value for field, value in status.items()):
            await self.client.patch(
                REPLICA_SETS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )
        return min((wait for wait in waits if wait), default=0.0)


def _worth(pod: Json) -> tuple[bool, bool, bool]:
    """What is worth least goes first: not bound, not running, not ready."""
    return bool(pod["spec"].get("nodeName")), phase(pod) == "Running", is_ready(pod)
