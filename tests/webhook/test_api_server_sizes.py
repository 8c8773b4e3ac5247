"""Quotas and LimitRanges, which only a real API server enforces: the sidecar's sizes pass, or the annotations help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

import pytest

from edgefarm import names
from edgefarm.errors import EdgefarmError, KubernetesRefused
from localcluster.client import Json, Resource
from localcluster.kubernetes import ApiServer
from tests.webhook.cluster import Cluster, open_cluster, unlabelled
from tests.webhook.conftest import StartWebhook, sidecar_of
from tests.webhook.shapes import container, pod
from webhook.annotations import Mode

_QUOTAS: Final = Resource("v1", "resourcequotas")
_LIMIT_RANGES: Final = Resource("v1", "limitranges")
_SMALL: Final = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "20m", "memory": "32Mi"}}


@pytest.fixture
async def cluster(api_server: ApiServer) -> AsyncIterator[Cluster]:
    async with open_cluster(api_server.kubeconfig) as running:
        try:
            await running.kube.list(_LIMIT_RANGES, running.namespace)
        except KubernetesRefused:
            pytest.skip("localcluster has neither quotas nor LimitRanges: set KUBEBUILDER_ASSETS")
        yield running


async def until_refused(cluster: Cluster, made: Json, words: str) -> None:
    """Wait until the API server knows of the restriction, and says these words about the pod."""
    deadline, answer = time.monotonic() + 10, "admitted"
    while words not in answer:
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)
        try:
            await cluster.dry_run(made)
        except EdgefarmError as error:
            answer = str(error)


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_namespace_with_a_quota_admits_the_sidecar(
    cluster: Cluster, start_webhook: StartWebhook, mode: Mode
) -> None:
    await cluster.register(start_webhook())
    hard = {"requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "2Gi"}
    quota = await cluster.kube.create(
        _QUOTAS, {"metadata": {"name": "small"}, "spec": {"hard": hard}}, cluster.namespace
    )
    # On a bare API server nobody counts; what is enforced is the status.
    quota["status"] = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    await cluster.kube.replace(_QUOTAS, "small", quota, cluster.namespace, subresource="status")
    await until_refused(cluster, unlabelled(pod()), "must specify limits.cpu for: app")
    made = pod(container(resources=_SMALL), metadata={"annotations": {names.ANNOTATION_MODE: mode}})
    assert sidecar_of(await cluster.dry_run(made))


async def test_where_a_limit_range_forbids_our_limit_the_annotation_lowers_it(
    cluster: Cluster, start_webhook: StartWebhook
) -> None:
    await cluster.register(start_webhook())
    limits = [{"type": "Container", "max": {"memory": "128Mi"}, "default": {"memory": "64Mi"}}]
    await cluster.kube.create(
        _LIMIT_RANGES, {"metadata": {"name": "small"}, "spec": {"limits": limits}}, cluster.namespace
    )
    await until_refused(cluster, pod(), "maximum memory usage per Container is 128Mi, but limit is 256Mi")
    made = pod(metadata={"annotations": {names.ANNOTATION_MEMORY_LIMIT: "64Mi"}})
    sizes = sidecar_of(await cluster.dry_run(made))["resources"]
    assert sizes["requests"]["memory"] == sizes["limits"]["memory"] == "64Mi"


async def test_the_defaults_of_a_limit_range_leave_the_sidecars_sizes(
    cluster: Cluster, start_webhook: StartWebhook
) -> None:
    await cluster.register(start_webhook())
    before = sidecar_of(await cluster.dry_run(pod()))["resources"]
    limits = [{"type": "Container", "default": {"memory": "8Mi"}, "defaultRequest": {"memory": "8Mi"}}]
    await cluster.kube.create(
        _LIMIT_RANGES, {"metadata": {"name": "defaults"}, "spec": {"limits": limits}}, cluster.namespace
    )
    deadline = time.monotonic() + 10
    while not (made := await cluster.dry_run(pod()))["spec"]["containers"][0]["resources"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert sidecar_of(made)["resources"] == before
