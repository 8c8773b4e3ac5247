"""The webhook behind an API server: localcluster's, or a real one where the environment names one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from edgefarm import names
from edgefarm.errors import EdgefarmError
from localcluster.client import Json
from localcluster.kubernetes import ApiServer
from localcluster.stack import Authority
from tests.apiserver.webhook import Webhook as OtherWebhook
from tests.apiserver.webhook import allow, configuration, patching
from tests.webhook.cluster import WEBHOOKS, Cluster, open_cluster, unlabelled
from tests.webhook.conftest import StartWebhook, env_of, make_pod, sidecar_of
from webhook.annotations import Mode
from webhook.template import API_TOKEN_DIR


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[Cluster]:
    async with open_cluster(api_server.kubeconfig) as running:
        yield running


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_labelled_pod_is_stored_with_the_sidecar(
    cluster: Cluster, start_webhook: StartWebhook, mode: Mode
) -> None:
    await cluster.register(start_webhook())
    pod = await cluster.create(make_pod(mode=mode))
    assert pod["spec"]["initContainers"][0] == sidecar_of(pod)
    assert [container["name"] for container in pod["spec"]["containers"]] == ["app"]
    assert {volume["name"] for volume in pod["spec"]["volumes"]} >= {names.VOLUME_TOKEN, names.VOLUME_CREDENTIALS}


def api_token_mounts(container: Json) -> list[str]:
    """The volumes that a container has where Kubernetes puts its API token."""
    mounts = container.get("volumeMounts", [])
    return [mount["name"] for mount in mounts if mount["mountPath"] == API_TOKEN_DIR]


@pytest.mark.parametrize("native", ["true", "false"], ids=["native", "classic"])
async def test_kubernetes_gives_its_api_token_to_the_application_and_not_to_the_sidecar(
    cluster: Cluster, start_webhook: StartWebhook, native: str
) -> None:
    await cluster.register(start_webhook(EDGEFARM_SIDECAR_NATIVE=native))
    spec = (await cluster.create(make_pod(initContainers=[{"name": "migrate", "image": "example/migrate:1"}])))["spec"]
    ours, migrate = spec["initContainers"]
    assert api_token_mounts(ours) == [names.VOLUME_TOKEN]
    [volume] = api_token_mounts(migrate)
    assert volume.startswith("kube-api-access-")
    assert all(api_token_mounts(container) == [volume] for container in spec["containers"])
    alone = (await cluster.create(make_pod(automountServiceAccountToken=False)))["spec"]
    assert [api_token_mounts(container) for container in alone["containers"]] == [[]] * len(alone["containers"])
    assert not [each["name"] for each in alone["volumes"] if each["name"].startswith("kube-api-access-")]


async def test_while_all_webhooks_are_down_only_labelled_pods_wait(
    cluster: Cluster, start_webhook: StartWebhook
) -> None:
    webhook = start_webhook()
    await cluster.register(webhook)
    assert webhook.process.stop() == 0
    with pytest.raises(EdgefarmError, match="failed calling webhook"):
        await cluster.create(make_pod())
    pod = await cluster.create(unlabelled(make_pod()))
    assert names.SIDECAR_CONTAINER not in str(pod)
    await cluster.register(start_webhook())
    assert sidecar_of(await cluster.create(make_pod()))


def adds_containers(request: Json) -> Json:
    """What a webhook of somebody else's does: a container and an init container, unless they are there."""
    spec = request["object"]["spec"]
    if any(container["name"] == "late" for container in spec["containers"]):
        return allow(request)
    late = {"op": "add", "path": "/spec/containers/-", "value": {"name": "late", "image": "example/late:1"}}
    first = {"op": "add", "path": "/spec/initContainers/0", "value": {"name": "first", "image": "example/first:1"}}
    return patching(late, first)(request)


async def test_what_a_later_webhook_adds_gets_its_environment_and_mounts_in_a_second_round(
    cluster: Cluster, start_webhook: StartWebhook, authority: Authority
) -> None:
    await cluster.register(start_webhook())
    with OtherWebhook(authority, adds_containers) as other:
        name = f"{cluster.configuration}-later"  # API servers ask in the order of names
        await cluster.kube.apply([configuration(name, other.by_url(), cluster.namespace)])
        try:
            pod = await until_added(cluster)
        finally:
            await cluster.kube.delete(WEBHOOKS, name)
    inits, [app, late] = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert [container["name"] for container in inits] == ["first", names.SIDECAR_CONTAINER]
    for container in (inits[0], late):
        assert env_of(container) == env_of(app)
        assert "/var/run/edgefarm/credentials" in [mount["mountPath"] for mount in container["volumeMounts"]]


async def until_added(cluster: Cluster) -> Json:
    """A pod in mode nats, as soon as the API server asks the other webhook too."""
    deadline = time.monotonic() + 20
    while True:
        pod = await cluster.create(make_pod(mode=Mode.NATS))
        if len(pod["spec"]["containers"]) == 2:
            return pod
        assert time.monotonic() < deadline, "the API server does not ask the other webhook"
        await asyncio.sleep(0.05)
