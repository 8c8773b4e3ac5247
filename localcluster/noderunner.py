"""Node runner: keeps Node objects and runs the pods that are bound to them; an ordinary client of any API server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import structlog

from localcluster.client import (
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    Client,
    Json,
)
from localcluster.events import EventRecorder
from localcluster.informer import Informer, key_of
from localcluster.network.clients import Clients
from localcluster.network.dns import ClusterDns
from localcluster.network.services import ServiceProxy, is_served
from localcluster.network.uplinks import Uplink, Uplinks
from localcluster.node import kubelet
from localcluster.node.addresses import AddressBlock
from localcluster.node.container import Container, Timing
from localcluster.node.images import IMAGES
from localcluster.node.launcher import Launcher
from localcluster.node.mounts import MountNamespaces
from localcluster.node.pod import PodWorker
from localcluster.node.preparation import Isolation, Runtime
from localcluster.node.registration import Registrar
from localcluster.node.sources import PodFacts
from localcluster.node.spec import REBOOT_ANNOTATION, NodeSpec
from localcluster.workloads.pods import controller_of

_log = structlog.get_logger()
_STOP_GRACE_SECONDS = 3.0
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class RunnerSettings:
    """How a node runner works; `images` are added to the known ones."""

    data_dir: Path
    nodes: Sequence[NodeSpec]
    images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    uplinks: Sequence[Uplink] = ()
    timing: Timing = field(default_factory=Timing)
    cluster_dns: bool = False
    """Whether containers resolve the names of Services (otherwise those are rewritten in what a container is told), and
    find tokens at their usual place."""


class NodeRunner:
    """The nodes of one process."""

    def __init__(self, client: Client, settings: RunnerSettings) -> None:
        self._client = client
        self._settings = settings
        self._addresses = AddressBlock.claim()
        self._hosts = {node.name: self._addresses.node(index) for index, node in enumerate(settings.nodes)}
        self._pods = Informer(client, PODS)
        self._nodes = Informer(client, NODES)
        self._services = Informer(client, SERVICES)
        self._registrar = Registrar(client, settings.nodes, self._hosts, self._nodes)
        self._boots: dict[str, str] = {}
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled; then all containers are stopped within a few seconds."""
        launcher = Launcher()
        for name in ("pods", "logs"):  # they hold secrets
            (self._settings.data_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        async with aiohttp.ClientSession() as session, self._kubelet():
            try:
                runtime = await self._make_runtime(launcher, session)
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._registrar.run())
                    self._serve_network(group, Clients(launcher.node_of_session), runtime.isolation)
                    self._watch_volumes(group)
                    self._pods.listen(lambda pod: self._observe(pod, runtime))
                    self._nodes.listen(self._observe_node)
                    for informer in (self._nodes, self._services):
                        group.create_task(informer.run())
                    await self._services.synced.wait()  # pods may name Services
                    group.create_task(self._pods.run())
            finally:
                await self._halt()
                launcher.close()
                self._addresses.close()

    async def _make_runtime(self, launcher: Launcher, session: aiohttp.ClientSession) -> Runtime:
        settings, isolation = self._settings, None
        if settings.cluster_dns:
            dns = ClusterDns(self._services, self._pods, self._client.connection.host)
            isolation = Isolation(await MountNamespaces.find(), dns)
        return Runtime(
            client=self._client,
            launcher=launcher,
            session=session,
            recorder=EventRecorder(self._client, "kubelet"),
            images={**IMAGES, **settings.images},
            timing=settings.timing,
            data_dir=settings.data_dir,
            resolve=self._resolve,
            isolation=isolation,
        )

    def _kubelet(self) -> AbstractAsyncContextManager[None]:
        """Serves logs on every node's address."""
        folder, client_ca = self._settings.data_dir / "kubelet", self._client.connection.ca
        context = kubelet.server_context(folder, list(self._hosts.values()), client_ca)
        listeners = [self._addresses.listen(index) for index in range(len(self._hosts))]
        return kubelet.serving(self._container, listeners, context)

    def _serve_network(self, group: asyncio.TaskGroup, clients: Clients, isolation: Isolation | None) -> None:
        if isolation is not None:
            group.create_task(isolation.dns.run())
        group.create_task(ServiceProxy(self._services, self._pods, clients.locate).run())
        group.create_task(Uplinks(self._settings.uplinks, self._nodes, clients.locate).run())

    def _resolve(self, service: str, namespace: str) -> str | None:
        if self._settings.cluster_dns:
            return None
        found = self._services.items.get((namespace, service))
        return str(found["spec"]["clusterIP"]) if found is not None and is_served(found) else None

    def _observe_node(self, node: Json) -> None:
        """Reboot a node of ours whose annotation has another value than when it was seen first."""
        name = node["metadata"]["name"]
        wanted = (node["metadata"].get("annotations") or {}).get(REBOOT_ANNOTATION, "")
        if name not in self._hosts or self._boots.setdefault(name, wanted) == wanted or not wanted:
            return
        self._boots[name] = wanted
        _log.info("node reboots", node=name)
        for worker in self._workers.values():
            if worker.facts.node == name:
                worker.reboot()

    def _container(self, namespace: str, pod: str, name: str) -> Container | None:
        found = self._pods.items.get((namespace, pod))
        worker = None if found is None else self._workers.get(found["metadata"]["uid"])
        return None if worker is None else worker.container(name)

    async def _halt(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._registrar.say_stopped()
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
        facts = PodFacts(node, self._addresses.take(_holder(pod)), self._hosts[node])
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

    def _watch_volumes(self, group: asyncio.TaskGroup) -> None:
        claims = Informer(self._client, PERSISTENT_VOLUME_CLAIMS)
        claims.listen(lambda claim: self._drop_volume(claims, claim))
        for informer in (Informer(self._client, SECRETS), Informer(self._client, CONFIG_MAPS), claims):
            group.create_task(self._watch_sources(informer))

    async def _watch_sources(self, informer: Informer) -> None:
        def tell(obj: Json) -> None:
            for worker in self._workers.values():
                if worker.pod["metadata"]["namespace"] == obj["metadata"]["namespace"]:
                    worker.source_changed(informer.resource, obj["metadata"]["name"])

        informer.listen(tell)
        await informer.run()

    def _drop_volume(self, claims: Informer, claim: Json) -> None:
        """Delete the data of a claim that is gone."""
        present = claims.items.get(key_of(claim))
        volume = claim["spec"].get("volumeName")
        if volume and (present is None or present["metadata"]["uid"] != claim["metadata"]["uid"]):
            shutil.rmtree(self._settings.data_dir / "claims" / volume, ignore_errors=True)


def _holder(pod: Json) -> str:
    """Who keeps the pod's address: the name, where a StatefulSet makes a new pod of the same name after this one."""
    if controller_of(pod, "StatefulSet") is None:
        return ""
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _is_over(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in _FINISHED and not pod["metadata"].get("deletionTimestamp")
