"""An API server that asks a running webhook about the pods of this test's own namespaces, and of no others."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.errors import Conflict, EdgefarmError, KubernetesRefused
from localcluster.client import NAMESPACES, PODS, SERVICE_ACCOUNTS, Client, Json, Resource
from tests.webhook.conftest import Webhook, make_pod
from tests.webhook.shapes import pod

WEBHOOKS: Final = Resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations")
_PRIORITY_CLASSES: Final = Resource("scheduling.k8s.io/v1", "priorityclasses")
_RUNTIME_CLASSES: Final = Resource("node.k8s.io/v1", "runtimeclasses")
_ACCOUNTS: Final = ("default", "sensor", "team.sensor")
#: What the pods of `shapes.py` refer to; an API server that does not serve these kinds does not ask for them either.
_CLASSES: Final[tuple[tuple[Resource, Json], ...]] = (
    (_PRIORITY_CLASSES, {"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
    (_RUNTIME_CLASSES, {"metadata": {"name": "kata"}, "handler": "kata"}),
)


@dataclass(frozen=True)
class Cluster:
    """Two namespaces of one test module: the second one enforces the restricted Pod Security Standard."""

    kube: Client
    namespace: str
    restricted: str

    @property
    def configuration(self) -> str:
        """Name of the webhook's registration, which no other test and no installation has."""
        return f"{self.namespace}-webhook"

    async def register(self, webhook: Webhook) -> None:
        """Register the webhook by URL and return when the API server asks this one."""
        selected = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [self.namespace, self.restricted]}
        configuration = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.configuration},
            "webhooks": [
                {
                    "name": "inject.network.edgefarm.io",
                    "admissionReviewVersions": ["v1"],
                    "clientConfig": {
                        "url": f"https://127.0.0.1:{webhook.port}/mutate",
                        "caBundle": base64.b64encode(webhook.authority.pem.encode()).decode(),
                    },
                    "failurePolicy": "Fail",
                    "namespaceSelector": {"matchExpressions": [selected]},
                    "objectSelector": {"matchExpressions": [{"key": names.LABEL_NETWORK, "operator": "Exists"}]},
                    "reinvocationPolicy": "IfNeeded",
                    "rules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                    ],
                    "sideEffects": "None",
                    "timeoutSeconds": 5,
                }
            ],
        }
        await self.kube.apply([configuration])
        deadline = time.monotonic() + 20
        while (answer := await self._answer()) is not None:
            assert time.monotonic() < deadline, f"the API server does not ask the webhook on this machine: {answer}"
            await asyncio.sleep(0.05)

    async def _answer(self) -> str | None:
        """What is wrong with the creation of a labelled pod; None when it is injected."""
        try:
            made = await self.dry_run(_without_owner(make_pod()))
        except EdgefarmError as error:
            return str(error)
        return None if names.ANNOTATION_STATUS in made["metadata"].get("annotations", {}) else "the pod is unchanged"

    async def create(self, made: Json) -> Json:
        """The pod as the API server stores it; raise EdgefarmError when it is refused."""
        return await self.kube.create(PODS, _without_owner(made), self.namespace)

    async def dry_run(self, made: Json, namespace: str = "") -> Json:
        """The pod as the API server would store it; raise EdgefarmError with its sentence when it is refused."""
        path = PODS.path(namespace or self.namespace)
        return await self.kube.request("POST", path, body=made, params={"dryRun": "All"})


@contextlib.asynccontextmanager
async def open_cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    """Make the namespaces and what pods refer to; at the end all of it is deleted again."""
    async with Client.from_kubeconfig(kubeconfig) as kube:
        name = f"webhook-{secrets.token_hex(4)}"
        cluster = Cluster(kube, name, f"{name}-restricted")
        enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
        await kube.create(NAMESPACES, {"metadata": {"name": cluster.namespace}})
        await kube.create(NAMESPACES, {"metadata": {"name": cluster.restricted, "labels": enforced}})
        for namespace in (cluster.namespace, cluster.restricted):
            for account in _ACCOUNTS:
                with contextlib.suppress(Conflict):  # the controllers of a whole cluster make `default`
                    await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": account}}, namespace)
        classes = [(kind, obj) for kind, obj in _CLASSES if await _is_new(kube, kind, obj)]
        try:
            yield cluster
        finally:
            await kube.delete(WEBHOOKS, cluster.configuration)
            for kind, obj in classes:
                await kube.delete(kind, obj["metadata"]["name"])
            for namespace in (cluster.namespace, cluster.restricted):
                await kube.delete(NAMESPACES, namespace)


async def enforces_pod_security(cluster: Cluster) -> bool:
    """Whether this API server refuses what the namespace's label forbids: a real one does, localcluster does not."""
    try:
        await cluster.dry_run(unlabelled(pod(hostNetwork=True)), cluster.restricted)
    except KubernetesRefused as error:
        return "PodSecurity" in str(error)
    return False


def unlabelled(made: Json) -> Json:
    """The same pod without our label."""
    labels = {key: value for key, value in made["metadata"]["labels"].items() if key != names.LABEL_NETWORK}
    return {**made, "metadata": {**made["metadata"], "labels": labels}}


def _without_owner(made: Json) -> Json:
    # A controller that collects orphans would delete the pod: its owner does not exist.
    return {**made, "metadata": {**made["metadata"], "ownerReferences": []}}


async def _is_new(kube: Client, kind: Resource, obj: Json) -> bool:
    try:
        await kube.create(kind, obj)
    except (Conflict, KubernetesRefused):
        return False
    return True
