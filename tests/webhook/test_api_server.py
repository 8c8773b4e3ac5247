"""The webhook behind an API server: localcluster's, or a real one where the environment names one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from edgefarm import names
from edgefarm.errors import EdgefarmError
from localcluster.kubernetes import ApiServer, start_api_server
from tests.webhook.cluster import Cluster, open_cluster, unlabelled
from tests.webhook.conftest import StartWebhook, make_pod, sidecar_of
from webhook.annotations import Mode


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("kubernetes"), Path(assets) if assets else None)
    yield server
    server.stop()


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
