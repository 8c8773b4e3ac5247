"""Jobs: pods that run to completion."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import ClassVar

from edgefarm.errors import EdgefarmError
from localcluster.client import JOBS, PODS, Json, Resource
from localcluster.events import timestamp
from localcluster.informer import Key
from localcluster.workloads.controller import Controller, Retry
from localcluster.workloads.pods import (
    condition,
    is_active,
    is_controlled_by,
    is_ready,
    phase,
    pod_from,
    random_suffix,
    with_condition,
)


@dataclass(frozen=True)
class Verdict:
    """How a Job ended: condition type, reason and message."""

    type: str
    reason: str
    message: str


def judge(spec: Json, pods: list[Json]) -> Verdict | None:
    """Whether the Job is over, from its pods; None while it goes on."""
    succeeded = sum(phase(pod) == "Succeeded" for pod in pods)
    completions = spec.get("completions")
    running = sum(map(is_active, pods))
    done = succeeded >= completions if completions is not None else succeeded > 0 and not running
    if done:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    failures = sum(phase(pod) == "Failed" for pod in pods)
    if spec["template"]["spec"].get("restartPolicy") == "OnFailure":
        failures += sum(
            status.get("restartCount", 0)
            for pod in pods
            for status in pod.get("status", {}).get("containerStatuses") or []
        )
    if failures > spec.get("backoffLimit", 6):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    return None


class JobController(Controller):
    resource: ClassVar[Resource] = JOBS
    kind: ClassVar[str] = "Job"
    owned: ClassVar[tuple[Resource, ...]] = (PODS,)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        job = await self.client.find(JOBS, name, namespace)
        if job is None or "deletionTimestamp" in job["metadata"] or _is_finished(job):
            return
        pods = [pod for pod in (await self.client.list(PODS, namespace))[0] if is_controlled_by(pod, job)]
        verdict = judge(job["spec"], pods)
        running = [pod for pod in pods if is_active(pod)]
        if verdict is not None:
            for pod in running:
                await self.client.delete(PODS, pod["metadata"]["name"], namespace, uid=pod["metadata"]["uid"])
            pods = [pod for pod in pods if not is_active(pod)]
        elif not job["spec"].get("suspend"):
            pods += await self._create(job, pods, len(running))
        await self._write_status(job, pods, verdict)

    async def _create(self, job: Json, pods: list[Json], running: int) -> list[Json]:
        metadata, spec = job["metadata"], job["spec"]
        succeeded = sum(phase(pod) == "Succeeded" for pod in pods)
        parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
        left = completions - succeeded if completions is not None else 0 if succeeded else parallelism
        wanted = min(parallelism, left)
        created = []
        for _ in range(wanted - running):
            name = f"{metadata['name'][:57]}-{random_suffix(os.urandom(5))}"
            try:
                created.append(
                    await self.client.create(PODS, pod_from(spec["template"], job, name), metadata["namespace"])
                )
            except EdgefarmError as error:
                message = f"Error creating: {error}"
                await self.cluster.recorder.record(job, "FailedCreate", message, warning=True)
                raise Retry from error
        return created

    async def _write_status(self, job: Json, pods: list[Json], verdict: Verdict | None) -> None:
        metadata, present, now = job["metadata"], job.get("status", {}), timestamp()
        status = {
            "startTime": present.get("startTime") or now,
            "active": sum(map(is_active, pods)),
            "ready": sum(map(is_ready, pods)),
            "succeeded": sum(phase(pod) == "Succeeded" for pod in pods),
            "failed": sum(phase(pod) == "Failed" for pod in pods),
        }
        if verdict is not None:
            # Kubernetes wants the condition that announces the end beside the one that states it.
            herald = "SuccessCriteriaMet" if verdict.type == "Complete" else "FailureTarget"
            conditions = present.get("conditions") or []
            for kind in (herald, verdict.type):
                entry = {"type": kind, "status": "True", "reason": verdict.reason, "message": verdict.message}
                conditions = with_condition(conditions, {**entry, "lastProbeTime": now}, now)
            status["conditions"] = conditions
            if verdict.type == "Complete":
                status["completionTime"] = now
        if any(present.get(field, 0) != value for field, value in status.items()):
            await self.client.patch(
                JOBS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )


def _is_finished(job: Json) -> bool:
    return any(condition(job, kind).get("status") == "True" for kind in ("Complete", "Failed"))
