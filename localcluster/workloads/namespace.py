"""Namespaces: what each one starts with, and emptying one that is being deleted."""

from __future__ import annotations

import contextlib
from typing import ClassVar, Final

from edgefarm.errors import Conflict, KubernetesRefused
from localcluster.client import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS, Json, Resource
from localcluster.informer import Key
from localcluster.workloads.controller import Cluster, Controller, Retry

_ROOT_CA: Final = ("kube-root-ca.crt", "ca.crt")
#: OpenShift's kube-apiserver mounts one more authority into every pod, which must exist before the pod can start.
_OPENSHIFT_CA: Final = ("openshift-service-ca.crt", "service-ca.crt")
_DEFAULT_ACCOUNT: Final = "default"


class NamespaceController(Controller):
    """Keeps the service account `default` and the ConfigMap with the API server's authority in every namespace."""

    resource: ClassVar[Resource] = NAMESPACES
    kind: ClassVar[str] = "Namespace"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._authorities = [_ROOT_CA]
        for resource in (SERVICE_ACCOUNTS, CONFIG_MAPS):
            cluster.informers[resource].listen(self._observe_standard_object)
        cluster.informers[PODS].listen(self._observe_pod)

    def _observe_standard_object(self, obj: Json) -> None:
        metadata = obj["metadata"]
        if metadata["name"] in (_DEFAULT_ACCOUNT, *(name for name, _ in self._authorities)):
            self.enqueue(("", metadata["namespace"]))

    def _observe_pod(self, pod: Json) -> None:
        if _OPENSHIFT_CA not in self._authorities and _mounts(pod, _OPENSHIFT_CA[0]):
            self._authorities.append(_OPENSHIFT_CA)
            self.enqueue_all()

    async def reconcile(self, key: Key) -> None:
        name = key[1]
        namespace = await self.client.find(NAMESPACES, name)
        if namespace is None:
            return
        if "deletionTimestamp" in namespace["metadata"]:
            await self._empty(namespace)
            return
        if await self.client.find(SERVICE_ACCOUNTS, _DEFAULT_ACCOUNT, name) is None:
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _DEFAULT_ACCOUNT}}
            with contextlib.suppress(Conflict):
                await self.client.create(SERVICE_ACCOUNTS, account, name)
        for config_map, file in self._authorities:
            await self._keep_authority(name, config_map, {file: self.client.connection.ca})

    async def _keep_authority(self, namespace: str, name: str, data: dict[str, str]) -> None:
        present = await self.client.find(CONFIG_MAPS, name, namespace)
        if present is None:
            config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
            with contextlib.suppress(Conflict):
                await self.client.create(CONFIG_MAPS, config_map, namespace)
        elif present.get("data") != data:
            await self.client.patch(CONFIG_MAPS, name, {"data": data}, namespace)

    async def _empty(self, namespace: Json) -> None:
        """Delete everything in it; release the namespace when nothing is left."""
        name = namespace["metadata"]["name"]
        if "kubernetes" not in namespace["spec"].get("finalizers", []):
            return
        left = 0
        for resource in await self.client.namespaced_resources():
            try:
                objects, _ = await self.client.list(resource, name)
            except KubernetesRefused:
                continue  # its CRD is gone meanwhile
            left += len(objects)
            for obj in objects:
                if "deletionTimestamp" not in obj["metadata"]:
                    await self.client.delete(resource, obj["metadata"]["name"], name)
        if left:
            raise Retry(0.5)
        await self.client.replace(NAMESPACES, name, {**namespace, "spec": {"finalizers": []}}, subresource="finalize")


def _mounts(pod: Json, config_map: str) -> bool:
    sources = [
        source
        for volume in pod["spec"].get("volumes") or []
        for source in volume.get("projected", {}).get("sources") or []
    ]
    return any(source.get("configMap", {}).get("name") == config_map for source in sources)
