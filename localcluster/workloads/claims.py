"""Persistent volume claims: which ones a StatefulSet wants, and how every claim is bound, protected and let go."""

from __future__ import annotations

import copy
from typing import ClassVar, Final

from localcluster.client import PERSISTENT_VOLUME_CLAIMS, PODS, Json, Resource
from localcluster.informer import Key
from localcluster.workloads.controller import Cluster, Controller
from localcluster.workloads.pods import phase

#: Keeps a claim until no pod uses it; Kubernetes' admission adds it, and here binding does where there is none.
PROTECTION: Final = "kubernetes.io/pvc-protection"


class ClaimController(Controller):
    """Binds every claim to a volume named after its uid: a folder of the node runner, which needs no other object."""

    resource: ClassVar[Resource] = PERSISTENT_VOLUME_CLAIMS
    kind: ClassVar[str] = "PersistentVolumeClaim"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        cluster.informers[PODS].listen(self._enqueue_claims_of)

    def _enqueue_claims_of(self, pod: Json) -> None:
        for name in claim_names(pod):
            self.enqueue((pod["metadata"]["namespace"], name))

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        claim = await self.client.find(PERSISTENT_VOLUME_CLAIMS, name, namespace)
        if claim is None:
            return
        if "deletionTimestamp" in claim["metadata"]:
            await self._let_go(claim)
        elif claim.get("status", {}).get("phase") != "Bound":
            await self._bind(claim)

    async def _bind(self, claim: Json) -> None:
        metadata, spec = claim["metadata"], claim["spec"]
        finalizers = metadata.get("finalizers") or []
        change = {
            "metadata": {
                "finalizers": finalizers if PROTECTION in finalizers else [*finalizers, PROTECTION],
                "resourceVersion": metadata["resourceVersion"],
            },
            "spec": {"volumeName": f"pvc-{metadata['uid']}"},
        }
        await self.client.patch(PERSISTENT_VOLUME_CLAIMS, metadata["name"], change, metadata["namespace"])
        status = {
            "phase": "Bound",
            "accessModes": spec.get("accessModes") or [],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
        }
        await self.client.patch(
            PERSISTENT_VOLUME_CLAIMS, metadata["name"], {"status": status}, metadata["namespace"], subresource="status"
        )

    async def _let_go(self, claim: Json) -> None:
        metadata = claim["metadata"]
        finalizers = metadata.get("finalizers") or []
        pods, _ = await self.client.list(PODS, metadata["namespace"])
        if PROTECTION not in finalizers or any(metadata["name"] in claim_names(pod) for pod in pods if _runs(pod)):
            return
        kept = [entry for entry in finalizers if entry != PROTECTION]
        change = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        await self.client.patch(PERSISTENT_VOLUME_CLAIMS, metadata["name"], change, metadata["namespace"])


def claim_names(pod: Json) -> set[str]:
    """The claims that a pod's volumes name."""
    volumes = pod["spec"].get("volumes") or []
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}


def claims_for(stateful_set: Json, pod_name: str) -> dict[str, Json]:
    """The claims of one pod of a StatefulSet, by the name of the volume that each stands for."""
    spec, found = stateful_set["spec"], {}
    for template in spec.get("volumeClaimTemplates") or []:
        volume = template["metadata"]["name"]
        labels = {**(template["metadata"].get("labels") or {}), **spec["selector"].get("matchLabels", {})}
        metadata: Json = {"name": f"{volume}-{pod_name}", "labels": labels}
        if annotations := template["metadata"].get("annotations"):
            metadata["annotations"] = annotations
        if owners := owners_of_claim(stateful_set, []):
            metadata["ownerReferences"] = owners
        found[volume] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata,
            "spec": copy.deepcopy(template["spec"]),
        }
    return found


def owners_of_claim(stateful_set: Json, present: list[Json]) -> list[Json]:
    """`present` with the StatefulSet as an owner exactly if its claims are to be deleted with it."""
    metadata = stateful_set["metadata"]
    others = [owner for owner in present if owner["uid"] != metadata["uid"]]
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if policy.get("whenDeleted") != "Delete":
        return others
    ours = {key: stateful_set[key] for key in ("apiVersion", "kind")} | {key: metadata[key] for key in ("name", "uid")}
    return [*others, ours]


def _runs(pod: Json) -> bool:
    return phase(pod) not in ("Succeeded", "Failed")
