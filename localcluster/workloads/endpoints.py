"""EndpointSlices: the addresses of the ready pods behind each Service."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import ClassVar

from edgefarm.errors import Conflict, KubernetesRefused
from localcluster.client import ENDPOINT_SLICES, PODS, SERVICES, Json, Resource
from localcluster.informer import Key
from localcluster.workloads.controller import Cluster, Controller
from localcluster.workloads.pods import is_ready, matches_labels, owner_reference, phase


class EndpointController(Controller):
    """One slice per Service with a selector.

    A real API server refuses loopback addresses in slices: there, Services have none and the refusal is an Event.
    """

    resource: ClassVar[Resource] = SERVICES
    kind: ClassVar[str] = "Service"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        cluster.informers[PODS].listen(self._enqueue_services_of)

    def _enqueue_services_of(self, pod: Json) -> None:
        metadata = pod["metadata"]
        for key, service in self.cluster.informers[SERVICES].items.items():
            selector = service["spec"].get("selector")
            same = key[0] == metadata["namespace"]
            if same and selector and matches_labels(selector, metadata.get("labels") or {}):
                self.enqueue(key)

    async def reconcile(self, key: Key) -> None:
        namespace, name = key
        service = await self.client.find(SERVICES, name, namespace)
        if service is None or not service["spec"].get("selector"):
            return
        pods, _ = await self.client.list(PODS, namespace)
        slice_ = slice_of(service, pods)
        present = await self.client.find(ENDPOINT_SLICES, name, namespace)
        try:
            if present is None:
                with contextlib.suppress(Conflict):
                    await self.client.create(ENDPOINT_SLICES, slice_, namespace)
            elif any(present.get(field) != slice_[field] for field in ("endpoints", "ports")):
                change = {"endpoints": slice_["endpoints"], "ports": slice_["ports"]}
                await self.client.patch(ENDPOINT_SLICES, name, change, namespace)
        except KubernetesRefused as error:
            await self.cluster.recorder.record(service, "FailedToUpdateEndpointSlices", str(error), warning=True)


def slice_of(service: Json, pods: Iterable[Json]) -> Json:
    """The EndpointSlice of a Service with a selector, made of the pods of its namespace."""
    metadata, spec = service["metadata"], service["spec"]
    behind = [
        pod
        for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
        if matches_labels(spec["selector"], pod["metadata"].get("labels") or {})
        and pod.get("status", {}).get("podIP")
        and phase(pod) not in ("Succeeded", "Failed")
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {"kubernetes.io/service-name": metadata["name"]},
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": [_endpoint(pod, service) for pod in behind],
        "ports": [
            {
                "name": port.get("name", ""),
                "port": _target_port(port, behind),
                "protocol": port.get("protocol", "TCP"),
            }
            for port in spec.get("ports") or []
        ],
    }


def _endpoint(pod: Json, service: Json) -> Json:
    metadata, spec = pod["metadata"], pod["spec"]
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or is_ready(pod)
    named = spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]
    return {
        **({"hostname": spec["hostname"]} if named else {}),
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": "deletionTimestamp" in metadata},
        "nodeName": spec.get("nodeName", ""),
        "targetRef": {
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }


def _target_port(port: Json, pods: list[Json]) -> int:
    """A target port by name is that of the first pod that has it."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for pod in pods:
        for container in pod["spec"]["containers"]:
            for entry in container.get("ports") or []:
                if entry.get("name") == target:
                    return int(entry["containerPort"])
    return int(port["port"])
