"""The official Python clients, synchronous and asynchronous, as the project's own programs use them."""

from __future__ import annotations

import asyncio

from kubernetes import client, config, watch
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config
from kubernetes.aio import watch as aio_watch

from localcluster.kubernetes import ApiServer
from tests.apiserver.rest import pod


def test_the_synchronous_client_lists_watches_and_writes(server: ApiServer, namespace: str) -> None:
    with config.new_client_from_config(str(server.kubeconfig)) as api:
        core = client.CoreV1Api(api)
        made = core.create_namespaced_pod(namespace, pod("p"))
        assert made.metadata.uid
        listed = core.list_namespaced_pod(namespace, label_selector="app=test")
        assert [item.metadata.name for item in listed.items] == ["p"]
        version = listed.metadata.resource_version
        core.patch_namespaced_pod_status("p", namespace, {"status": {"phase": "Running"}})
        stream = watch.Watch().stream(core.list_namespaced_pod, namespace, resource_version=version, timeout_seconds=10)
        event = next(stream)
        stream.close()
        assert (event["type"], event["object"].status.phase) == ("MODIFIED", "Running")


async def test_the_asynchronous_client_lists_watches_and_writes(server: ApiServer, namespace: str) -> None:
    configuration = aio_client.Configuration()
    await aio_config.load_kube_config(str(server.kubeconfig), client_configuration=configuration)
    async with aio_client.ApiClient(configuration) as api:
        core = aio_client.CoreV1Api(api)
        version = (await core.list_namespaced_config_map(namespace)).metadata.resource_version

        async def first_event() -> tuple[str, str]:
            async with aio_watch.Watch().stream(
                core.list_namespaced_config_map, namespace, resource_version=version, timeout_seconds=10
            ) as stream:
                async for event in stream:
                    return event["type"], event["object"].metadata.name
            raise AssertionError("the watch ended without an event")

        watching = asyncio.create_task(first_event())
        await core.create_namespaced_config_map(namespace, {"metadata": {"name": "c"}, "data": {"a": "b"}})
        assert await asyncio.wait_for(watching, 15) == ("ADDED", "c")
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}
        leases = aio_client.CoordinationV1Api(api)
        made = await leases.create_namespaced_lease(namespace, lease)
        made.spec.holder_identity = "you"
        changed = await leases.replace_namespaced_lease("l", namespace, made)
        assert changed.spec.holder_identity == "you"
