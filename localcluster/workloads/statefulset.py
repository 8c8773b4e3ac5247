"""StatefulSets: pods with fixed names, made and replaced one after the other."""

from __future__ import annotations

from typing import ClassVar, Final

from edgefarm.errors import EdgefarmError
from localcluster.client import PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS, Json, Resource
from localcluster.informer import Key
from localcluster.workloads.claims import claims_for, owners_of_claim
from localcluster.workloads.controller import Controller, Retry
from localcluster.workloads.pods import is_active, is_controlled_by, is_ready, pod_from, template_hash

_REVISION_LABEL: Final = "controller-revision-hash"


class StatefulSetController(Controller):
    resource: ClassVar[Resource] = STATEFUL_SETS
    kind: ClassVar[str] = "StatefulSet"
    owned: ClassVar[tuple[Resource, ...]] = (PODS,)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        stateful_set = await self.client.find(STATEFUL_SETS, name, namespace)
        if stateful_set is None or "deletionTimestamp" in stateful_set["metadata"]:
            return
        pods = {
            pod["metadata"]["name"]: pod
            for pod in (await self.client.list(PODS, namespace))[0]
            if is_controlled_by(pod, stateful_set)
        }
        revision = f"{name}-{template_hash(stateful_set['spec']['template'])}"
        await self._own_claims(stateful_set)
        try:
            await self._step(stateful_set, pods, revision)
        finally:
            await self._write_status(stateful_set, pods, revision)

    async def _step(self, stateful_set: Json, pods: dict[str, Json], revision: str) -> None:
        """Create, remove or replace pods, as far as the order allows now."""
        name, spec = stateful_set["metadata"]["name"], stateful_set["spec"]
        ordered = spec.get("podManagementPolicy") != "Parallel"
        wanted = [f"{name}-{index}" for index in range(spec.get("replicas", 1))]
        for index, pod_name in enumerate(wanted):
            pod = pods.get(pod_name)
            if pod is None:
                pods[pod_name] = pod = await self._create(stateful_set, index, revision)
            elif not is_active(pod):
                await self._delete(pod)
            if ordered and not is_ready(pod):
                if pod["metadata"]["labels"].get(_REVISION_LABEL) != revision:
                    await self._delete(pod)  # a broken pod must not keep its successor from coming
                return
        surplus = sorted(pods.keys() - set(wanted), key=_ordinal, reverse=True)
        for pod_name in surplus[:1] if ordered else surplus:
            await self._delete(pods[pod_name])
        if surplus or spec.get("updateStrategy", {}).get("type") == "OnDelete":
            return
        for pod_name in reversed(wanted):
            if pods[pod_name]["metadata"]["labels"].get(_REVISION_LABEL) != revision:
                await self._delete(pods[pod_name])
                return
            if not is_ready(pods[pod_name]):
                return

    async def _create(self, stateful_set: Json, index: int, revision: str) -> Json:
        metadata, spec = stateful_set["metadata"], stateful_set["spec"]
        name = f"{metadata['name']}-{index}"
        labels = {
            _REVISION_LABEL: revision,
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(index),
        }
        pod = pod_from(spec["template"], stateful_set, name, labels)
        pod["spec"]["hostname"] = name
        if spec.get("serviceName"):
            pod["spec"]["subdomain"] = spec["serviceName"]
        claims = claims_for(stateful_set, name)
        others = [volume for volume in pod["spec"].get("volumes") or [] if volume["name"] not in claims]
        pod["spec"]["volumes"] = others + [
            {"name": volume, "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}
            for volume, claim in claims.items()
        ]
        try:
            for claim in claims.values():
                await self._ensure_claim(claim, metadata["namespace"])
            return await self.client.create(PODS, pod, metadata["namespace"])
        except EdgefarmError as error:
            message = f"create Pod {name} failed: {error}"
            await self.cluster.recorder.record(stateful_set, "FailedCreate", message, warning=True)
            raise Retry from error

    async def _ensure_claim(self, claim: Json, namespace: str) -> None:
        name = claim["metadata"]["name"]
        present = await self.client.find(PERSISTENT_VOLUME_CLAIMS, name, namespace)
        if present is None:
            await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim, namespace)
        elif "deletionTimestamp" in present["metadata"]:
            raise Retry  # its successor would be another volume

    async def _own_claims(self, stateful_set: Json) -> None:
        """Have the claims that exist go with the StatefulSet, or stay, as it says now."""
        namespace, spec = stateful_set["metadata"]["namespace"], stateful_set["spec"]
        if not spec.get("volumeClaimTemplates"):
            return
        wanted = {
            claim["metadata"]["name"]
            for index in range(spec.get("replicas", 1))
            for claim in claims_for(stateful_set, f"{stateful_set['metadata']['name']}-{index}").values()
        }
        for claim in (await self.client.list(PERSISTENT_VOLUME_CLAIMS, namespace))[0]:
            metadata = claim["metadata"]
            present = metadata.get("ownerReferences") or []
            owners = owners_of_claim(stateful_set, present)
            if metadata["name"] in wanted and [owner["uid"] for owner in owners] != [owner["uid"] for owner in present]:
                change = {"metadata": {"ownerReferences": owners, "resourceVersion": metadata["resourceVersion"]}}
                await self.client.patch(PERSISTENT_VOLUME_CLAIMS, metadata["name"], change, namespace)

    async def _delete(self, pod: Json) -> None:
        metadata = pod["metadata"]
        if "deletionTimestamp" not in metadata:
            await self.client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])

    async def _write_status(self, stateful_set: Json, pods: dict[str, Json], revision: str) -> None:
        metadata, present = stateful_set["metadata"], stateful_set.get("status", {})
        alive = [pod for pod in pods.values() if is_active(pod)]
        updated = sum(pod["metadata"]["labels"].get(_REVISION_LABEL) == revision for pod in alive)
        ready = sum(map(is_ready, alive))
        complete = updated == ready == len(pods) == stateful_set["spec"].get("replicas", 1)
        current = revision if complete else present.get("currentRevision") or revision
        status = {
            "replicas": len(alive),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": sum(pod["metadata"]["labels"].get(_REVISION_LABEL) == current for pod in alive),
            "updatedReplicas": updated,
            "currentRevision": current,
            "updateRevision": revision,
            "observedGeneration": metadata.get("generation", 0),
        }
        if any(present.get(field, 0) != value for field, value in status.items()):
            await self.client.patch(
                STATEFUL_SETS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
            )


def _ordinal(pod_name: str) -> int:
    return int(pod_name.rpartition("-")[2])
