"""Deployments: one ReplicaSet per pod template, replaced step by step."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import ClassVar, Final

from localcluster.client import DEPLOYMENTS, REPLICA_SETS, Json, Resource
from localcluster.events import timestamp
from localcluster.informer import Key
from localcluster.workloads.controller import Controller
from localcluster.workloads.pods import condition, is_controlled_by, owner_reference, template_hash, with_condition
from localcluster.workloads.rollout import Replicas, Strategy, plan

_HASH_LABEL: Final = "pod-template-hash"
_REVISION: Final = "deployment.kubernetes.io/revision"


class DeploymentController(Controller):
    resource: ClassVar[Resource] = DEPLOYMENTS
    kind: ClassVar[str] = "Deployment"
    owned: ClassVar[tuple[Resource, ...]] = (REPLICA_SETS,)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        deployment = await self.client.find(DEPLOYMENTS, name, namespace)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        all_sets, _ = await self.client.list(REPLICA_SETS, namespace)
        sets = sorted((entry for entry in all_sets if is_controlled_by(entry, deployment)), key=_revision)
        new_name = f"{name}-{template_hash(deployment['spec']['template'])}"
        new = next((entry for entry in sets if entry["metadata"]["name"] == new_name), None)
        old = [entry for entry in sets if entry is not new]
        if not deployment["spec"].get("paused"):
            new = await self._renew(deployment, new_name, new, old)
            await self._scale(deployment, new, old)
            await self._forget(deployment, old)
        await self._write_status(deployment, new, old)

    async def _renew(self, deployment: Json, name: str, new: Json | None, old: list[Json]) -> Json:
        """The ReplicaSet of the present template, with the highest revision."""
        namespace = deployment["metadata"]["namespace"]
        youngest = max(map(_revision, old), default=0)
        if new is None:
            new = await self.client.create(REPLICA_SETS, _replica_set(deployment, name, youngest + 1), namespace)
        elif _revision(new) <= youngest:  # rolled back to an earlier template
            change = {"metadata": {"annotations": {_REVISION: str(youngest + 1)}}}
            new = await self.client.patch(REPLICA_SETS, name, change, namespace)
        revision = new["metadata"]["annotations"][_REVISION]
        if (deployment["metadata"].get("annotations") or {}).get(_REVISION) != revision:
            change = {"metadata": {"annotations": {_REVISION: revision}}}
            await self.client.patch(DEPLOYMENTS, deployment["metadata"]["name"], change, namespace)
        return new

    async def _scale(self, deployment: Json, new: Json, old: list[Json]) -> None:
        strategy = Strategy.of(deployment["spec"])
        wanted = plan(strategy, _replicas(new), [_replicas(entry) for entry in old])
        for entry in (new, *old):
            metadata = entry["metadata"]
            replicas = wanted[metadata["name"]]
            if entry["spec"].get("replicas", 1) != replicas:
                change = {"spec": {"replicas": replicas}}
                await self.client.patch(REPLICA_SETS, metadata["name"], change, metadata["namespace"])

    async def _forget(self, deployment: Json, old: list[Json]) -> None:
        """Delete the oldest empty ReplicaSets beyond the history limit."""
        limit = deployment["spec"].get("revisionHistoryLimit", 10)
        empty = [entry for entry in old if not entry["spec"].get("replicas") and not _replicas(entry).existing]
        for entry in empty[: max(0, len(empty) - limit)]:
            metadata = entry["metadata"]
            await self.client.delete(REPLICA_SETS, metadata["name"], metadata["namespace"], uid=metadata["uid"])

    async def _write_status(self, deployment: Json, new: Json | None, old: list[Json]) -> None:
        metadata, present = deployment["metadata"], deployment.get("status", {})
        numbers = _numbers(deployment, new, old)
        status: Json = {
            **numbers,
            "observedGeneration": metadata.get("generation", 0),
            "conditions": _conditions(deployment, numbers, new),
        }
        if any(present.get(field, 0) != value for field, value in status.items()):
            await self.client.patch(
                DEPLOYMENTS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )


def _numbers(deployment: Json, new: Json | None, old: list[Json]) -> dict[str, int]:
    sets = [entry.get("status", {}) for entry in (*old, *([new] if new else []))]
    available = sum(entry.get("availableReplicas", 0) for entry in sets)
    total = sum(entry.get("replicas", 0) for entry in sets)
    return {
        "replicas": total,
        "updatedReplicas": new.get("status", {}).get("replicas", 0) if new else 0,
        "readyReplicas": sum(entry.get("readyReplicas", 0) for entry in sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, max(total, deployment["spec"].get("replicas", 1)) - available),
    }


def _conditions(deployment: Json, numbers: dict[str, int], new: Json | None) -> list[Json]:
    strategy, now = Strategy.of(deployment["spec"]), timestamp(datetime.now(UTC))
    least = 0 if strategy.recreate else strategy.replicas - strategy.unavailable
    enough = numbers["availableReplicas"] >= (strategy.replicas if strategy.recreate else least)
    available = {
        "type": "Available",
        "status": "True" if enough else "False",
        "reason": "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        "message": f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    }
    complete = numbers["updatedReplicas"] == numbers["replicas"] == numbers["availableReplicas"] == strategy.replicas
    name = new["metadata"]["name"] if new else ""
    progressing = {
        "type": "Progressing",
        "status": "True",
        "reason": "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
        "message": f'ReplicaSet "{name}" {"has successfully progressed" if complete else "is progressing"}.',
    }
    conditions = [
        entry for entry in deployment.get("status", {}).get("conditions") or [] if entry["type"] != "ReplicaFailure"
    ]
    for entry in (available, progressing):
        before: Json = next((old for old in conditions if old["type"] == entry["type"]), {})
        if any(before.get(key) != value for key, value in entry.items()):
            conditions = with_condition(conditions, {**entry, "lastUpdateTime": now}, now)
    failure = condition(new, "ReplicaFailure") if new else {}
    return [*conditions, failure] if failure else conditions


def _replica_set(deployment: Json, name: str, revision: int) -> Json:
    spec = deployment["spec"]
    template = copy.deepcopy(spec["template"])
    label = {_HASH_LABEL: name.rpartition("-")[2]}
    template["metadata"]["labels"] = {**template["metadata"].get("labels", {}), **label}
    selector = copy.deepcopy(spec["selector"])
    selector["matchLabels"] = {**selector.get("matchLabels", {}), **label}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": deployment["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {_REVISION: str(revision)},
            "ownerReferences": [owner_reference(deployment)],
        },
        "spec": {
            "replicas": 0,
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector,
            "template": template,
        },
    }


def _replicas(replica_set: Json) -> Replicas:
    status = replica_set.get("status", {})
    return Replicas(
        name=replica_set["metadata"]["name"],
        wanted=replica_set["spec"].get("replicas", 1),
        existing=status.get("replicas", 0),
        available=status.get("availableReplicas", 0),
    )


def _revision(replica_set: Json) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(_REVISION, 0))
