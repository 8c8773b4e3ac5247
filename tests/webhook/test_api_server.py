"""The webhook behind an API server: localcluster's, or a real one when KUBEBUILDER_ASSETS names its programs."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgefarm import names
from edgefarm.errors import EdgefarmError
from localcluster.client import NAMESPACES, PODS, SERVICE_ACCOUNTS, Client
from localcluster.kubernetes import ApiServer, start_api_server
from tests.webhook.conftest import Json, StartWebhook, Webhook, make_pod, sidecar_of
from webhook.annotations import Mode

_NAMESPACE = "team-a"


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("kubernetes"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(api_server.kubeconfig) as client:
        if await client.find(NAMESPACES, _NAMESPACE) is None:
            await client.create(NAMESPACES, {"metadata": {"name": _NAMESPACE}})
            await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "sensor"}}, _NAMESPACE)
        yield client


async def register(kube: Client, webhook: Webhook) -> None:
    """Register the webhook by URL and wait until the API server asks it."""
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": names.WEBHOOK_CONFIGURATION},
        "webhooks": [
            {
                "name": "inject.network.edgefarm.io",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {
                    "url": f"https://127.0.0.1:{webhook.port}/mutate",
                    "caBundle": base64.b64encode(webhook.authority.pem.encode()).decode(),
                },
                "failurePolicy": "Fail",
                "objectSelector": {"matchExpressions": [{"key": names.LABEL_NETWORK, "operator": "Exists"}]},
                "reinvocationPolicy": "IfNeeded",
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }
    await kube.apply([configuration])
    deadline = time.monotonic() + 20
    while names.ANNOTATION_STATUS not in (await created(kube, make_pod()) or {"metadata": {}})["metadata"].get(
        "annotations", {}
    ):
        assert time.monotonic() < deadline, "the API server does not ask the webhook"
        await asyncio.sleep(0.05)


async def created(kube: Client, pod: Json) -> Json | None:
    """The pod as the API server stored it; None when it was refused."""
    pod["metadata"].pop("ownerReferences", None)
    try:
        return await kube.create(PODS, pod, _NAMESPACE)
    except EdgefarmError:
        return None


def unlabelled() -> Json:
    pod = make_pod()
    del pod["metadata"]["labels"][names.LABEL_NETWORK]
    return pod


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_labelled_pod_is_stored_with_the_sidecar(kube: Client, start_webhook: StartWebhook, mode: Mode) -> None:
    await register(kube, start_webhook())
    pod = await created(kube, make_pod(mode=mode))
    assert pod is not None
    assert pod["spec"]["initContainers"][0] == sidecar_of(pod)
    assert [container["name"] for container in pod["spec"]["containers"]] == ["app"]
    assert {volume["name"] for volume in pod["spec"]["volumes"]} >= {names.VOLUME_TOKEN, names.VOLUME_CREDENTIALS}


async def test_a_denied_pod_is_refused_with_our_sentence(kube: Client, start_webhook: StartWebhook) -> None:
    await register(kube, start_webhook())
    pod = make_pod({names.ANNOTATION_MODE: "kafka"})
    del pod["metadata"]["ownerReferences"]
    with pytest.raises(EdgefarmError, match=f"annotation {names.ANNOTATION_MODE} is 'kafka': write one of"):
        await kube.create(PODS, pod, _NAMESPACE)


async def test_while_all_webhooks_are_down_only_labelled_pods_wait(kube: Client, start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    await register(kube, webhook)
    assert webhook.process.stop() == 0
    assert await created(kube, make_pod()) is None
    pod = await created(kube, unlabelled())
    assert pod is not None
    assert names.SIDECAR_CONTAINER not in str(pod)
    await register(kube, start_webhook())
    assert await created(kube, make_pod()) is not None
