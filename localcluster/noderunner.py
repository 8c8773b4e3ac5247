"""Node runner: keeps Node objects and runs the pods that are bound to them; an ordinary client of any API server."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import structlog

from edgefarm.errors import Conflict, EdgefarmError
from localcluster.client import CONFIG_MAPS, NODES, PODS, SECRETS, Client, Json, Resource
from localcluster.events import EventRecorder, timestamp
from localcluster.informer import Informer
from localcluster.node import kubelet
from localcluster.node.addresses import KUBELET_PORT, AddressBlock
from localcluster.node.container import Container, Timing
from localcluster.node.images import IMAGES
from localcluster.node.launcher import Launcher
from localcluster.node.pod import PodWorker, Runtime
from localcluster.node.sources import PodFacts
from localcluster.node.spec import NodeSpec

_log = structlog.get_logger()
_HEARTBEAT_SECONDS = 10.0
_STOP_GRACE_SECONDS = 3.0
_FINISHED = ("Succeeded", "Failed")
_READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the node runner is running"}


@dataclass(frozen=True)
class RunnerSettings:
    """How a node runner works; `images` are added to the known ones."""

    data_dir: Path
    nodes: Sequence[NodeSpec]
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)


class NodeRunner:
    """The nodes of one process."""

    def __init__(self, client: Client, settings: RunnerSettings) -> None:
        self._client = client
        self._settings = settings
        self._addresses = AddressBlock.claim()
        self._hosts = {node.name: self._addresses.node(index) for index, node in enumerate(settings.nodes)}
        self._pods = Informer(client, PODS)
        self._missing = {node.name: asyncio.Event() for node in settings.nodes}
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled; then all containers are stopped within a few seconds."""
        launcher = Launcher()
        for name in ("pods", "logs"):  # they hold secrets
            (self._settings.data_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        async with aiohttp.ClientSession() as session, self._kubelet():
            runtime = Runtime(
                client=self._client,
                launcher=launcher,
                session=session,
                recorder=EventRecorder(self._client, "kubelet"),
                images={**IMAGES, **self._settings.images},
                timing=self._settings.timing,
                data_dir=self._settings.data_dir,
            )
            try:
                async with asyncio.TaskGroup() as group:
                    for node in self._settings.nodes:
                        group.create_task(self._keep_node(node))
                    group.create_task(self._watch_nodes())
                    for resource in (SECRETS, CONFIG_MAPS):
                        group.create_task(self._watch_sources(resource))
                    self._pods.listen(lambda pod: self._observe(pod, runtime))
                    group.create_task(self._pods.run())
            finally:
                await self._halt()
                launcher.close()
                self._addresses.close()

    def _kubelet(self) -> AbstractAsyncContextManager[None]:
        """Serves logs on every node's address."""
        folder, client_ca = self._settings.data_dir / "kubelet", self._client.connection.ca
        context = kubelet.server_context(folder, list(self._hosts.values()), client_ca)
        listeners = [self._addresses.listen(index) for index in range(len(self._hosts))]
        return kubelet.serving(self._container, listeners, context)

    def _container(self, namespace: str, pod: str, name: str) -> Container | None:
        found = self._pods.items.get((namespace, pod))
        worker = None if found is None else self._workers.get(found["metadata"]["uid"])
        return None if worker is None else worker.container(name)

    async def _halt(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._say_stopped()
        await asyncio.gather(*(worker.halt(_STOP_GRACE_SECONDS) for worker in self._workers.values()))

    # -- pods --------------------------------------------------------------------------------------------------------

    def _observe(self, seen: Json, runtime: Runtime) -> None:
        """Bring the workers in line with the pods of this name that exist now."""
        metadata = seen["metadata"]
        uid = metadata["uid"]
        pod = self._pods.items.get((metadata["namespace"], metadata["name"]))
        worker = self._workers.get(uid)
        if pod is None or pod["metadata"]["uid"] != uid:
            if worker is not None:
                worker.vanish()
            return
        if worker is not None:
            worker.update(pod)
        elif pod["spec"].get("nodeName") in self._hosts and not _is_over(pod):
            self._start(pod, runtime)

    def _start(self, pod: Json, runtime: Runtime) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
        facts = PodFacts(node, self._addresses.take(), self._hosts[node])
        worker = self._workers[uid] = PodWorker(pod, facts, runtime)
        worker.update(pod)
        self._tasks[uid] = asyncio.create_task(self._run_pod(uid, worker), name=f"pod {pod['metadata']['name']}")

    async def _run_pod(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:  # noqa: BLE001 — the boundary of one pod: its bug must not take the other pods down
            _log.exception("pod worker failed", pod=worker.pod["metadata"]["name"])
            await worker.halt(_STOP_GRACE_SECONDS)
        self._addresses.give_back(worker.facts.pod_ip)
        del self._workers[uid], self._tasks[uid]

    async def _watch_sources(self, resource: Resource) -> None:
        def tell(obj: Json) -> None:
            for worker in self._workers.values():
                if worker.pod["metadata"]["namespace"] == obj["metadata"]["namespace"]:
                    worker.source_changed(resource, obj["metadata"]["name"])

        informer = Informer(self._client, resource)
        informer.listen(tell)
        await informer.run()

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def _keep_node(self, node: NodeSpec) -> None:
        while True:
            try:
                self._missing[node.name].clear()
                await self._register(node)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._missing[node.name].wait(), _HEARTBEAT_SECONDS)
            except EdgefarmError as error:
                _log.warning("node not registered", node=node.name, error=str(error))
                await asyncio.sleep(0.5)

    async def _watch_nodes(self) -> None:
        """Have a node that somebody deleted registered again at once."""

        def tell(obj: Json) -> None:
            name = obj["metadata"]["name"]
            if name in self._missing and ("", name) not in informer.items:
                self._missing[name].set()

        informer = Informer(self._client, NODES)
        informer.listen(tell)
        await informer.run()

    async def _register(self, node: NodeSpec) -> None:
        """Create the Node if it is missing, and write its heartbeat. Labels that others changed stay."""
        current = await self._client.find(NODES, node.name)
        if current is None:
            labels = {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "unknown"),
                **node.labels,
            }
            new: Json = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}
            if node.taints:
                new["spec"] = {"taints": [asdict(taint) for taint in node.taints]}
            with contextlib.suppress(Conflict):
                await self._client.create(NODES, new)
            current = await self._client.get(NODES, node.name)
        status = self._node_status(node, current)
        await self._client.patch(NODES, node.name, {"status": status}, subresource="status")
        # An API server taints new nodes until a controller finds them ready; here that is us.
        taints = current.get("spec", {}).get("taints") or []
        kept = [taint for taint in taints if taint["key"] != "node.kubernetes.io/not-ready"]
        if kept != taints:
            await self._client.patch(NODES, node.name, {"spec": {"taints": kept}})

    async def _say_stopped(self) -> None:
        """Take the nodes out of service, so that no pod is bound to them from now on."""
        stopped = {**_READY, "status": "False", "reason": "NodeShutdown", "message": "the node runner has stopped"}
        now = timestamp()
        status = {"conditions": [{**stopped, "lastHeartbeatTime": now, "lastTransitionTime": now}]}
        with contextlib.suppress(EdgefarmError, TimeoutError):
            async with asyncio.timeout(1.0):
                for node in self._settings.nodes:
                    await self._client.patch(NODES, node.name, {"status": status}, subresource="status")

    def _node_status(self, node: NodeSpec, current: Json) -> Json:
        now = timestamp()
        before: Json = next(
            (entry for entry in current.get("status", {}).get("conditions") or [] if entry["type"] == "Ready"), {}
        )
        since = before["lastTransitionTime"] if before.get("status") == "True" else now
        capacity = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
        return {
            "conditions": [{**_READY, "lastHeartbeatTime": now, "lastTransitionTime": since}],
            "addresses": [
                {"type": "InternalIP", "address": self._hosts[node.name]},
                {"type": "Hostname", "address": node.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
            "capacity": capacity,
            "allocatable": capacity,
            "nodeInfo": {
                "machineID": "",
                "systemUUID": "",
                "bootID": "",
                "kernelVersion": platform.release(),
                "osImage": "localcluster",
                "containerRuntimeVersion": "local://1",
                "kubeletVersion": "v1.36.0-localcluster",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": platform.machine(),
            },
        }


def _is_over(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in _FINISHED and not pod["metadata"].get("deletionTimestamp")
