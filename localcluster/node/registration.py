"""Keeps the Node objects of a runner: registers them, writes their heartbeats, and takes them out of service."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import structlog

from edgefarm.errors import Conflict, EdgefarmError
from localcluster.client import NODES, Client, Json
from localcluster.events import timestamp
from localcluster.informer import Informer
from localcluster.node.addresses import KUBELET_PORT
from localcluster.node.spec import NodeSpec
from localcluster.node.waiting import set_within

_HEARTBEAT_SECONDS = 10.0
_READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the node runner is running"}
_log = structlog.get_logger()


class Registrar:
    """The Node objects of one runner; `hosts` are their addresses by name, `nodes` mirrors all Nodes."""

    def __init__(self, client: Client, specs: Sequence[NodeSpec], hosts: Mapping[str, str], nodes: Informer) -> None:
        self._client = client
        self._specs = specs
        self._hosts = hosts
        self._nodes = nodes
        self._missing = {spec.name: asyncio.Event() for spec in specs}

    async def run(self) -> None:
        """Keep all nodes until cancelled."""
        self._nodes.listen(self._observe)
        async with asyncio.TaskGroup() as group:
            for spec in self._specs:
                group.create_task(self._keep(spec))

    async def say_stopped(self) -> None:
        """Take the nodes out of service, so that no pod is bound to them from now on."""
        stopped = {**_READY, "status": "False", "reason": "NodeShutdown", "message": "the node runner has stopped"}
        now = timestamp()
        status = {"conditions": [{**stopped, "lastHeartbeatTime": now, "lastTransitionTime": now}]}
        with contextlib.suppress(EdgefarmError, TimeoutError):
            async with asyncio.timeout(1.0):
                for spec in self._specs:
                    await self._client.patch(NODES, spec.name, {"status": status}, subresource="status")

    def _observe(self, node: Json) -> None:
        """Have a node that somebody deleted registered again at once."""
        name = node["metadata"]["name"]
        if name in self._missing and ("", name) not in self._nodes.items:
            self._missing[name].set()

    async def _keep(self, spec: NodeSpec) -> None:
        while True:
            try:
                self._missing[spec.name].clear()
                await self._register(spec)
                await set_within(self._missing[spec.name], _HEARTBEAT_SECONDS)
            except EdgefarmError as error:
                _log.warning("node not registered", node=spec.name, error=str(error))
                await asyncio.sleep(0.5)

    async def _register(self, spec: NodeSpec) -> None:
        """Create the Node if it is missing, and write its heartbeat. Labels and taints that others changed stay."""
        current = await self._client.find(NODES, spec.name)
        if current is None:
            with contextlib.suppress(Conflict):
                await self._client.create(NODES, _new_node(spec))
            current = await self._client.get(NODES, spec.name)
        status = _status(self._hosts[spec.name], spec.name, current)
        await self._client.patch(NODES, spec.name, {"status": status}, subresource="status")
        # An API server taints new nodes until a controller finds them ready; here that is us.
        taints = current.get("spec", {}).get("taints") or []
        kept = [taint for taint in taints if taint["key"] != "node.kubernetes.io/not-ready"]
        if kept != taints:
            await self._client.patch(NODES, spec.name, {"spec": {"taints": kept}})


def _new_node(spec: NodeSpec) -> Json:
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "unknown"),
        **spec.labels,
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels},
        "spec": {"taints": [asdict(taint) for taint in spec.taints]} if spec.taints else {},
    }


def _status(host: str, name: str, current: Json) -> Json:
    now = timestamp()
    before: Json = next(
        (entry for entry in current.get("status", {}).get("conditions") or [] if entry["type"] == "Ready"), {}
    )
    since = before["lastTransitionTime"] if before.get("status") == "True" else now
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
    return {
        "conditions": [{**_READY, "lastHeartbeatTime": now, "lastTransitionTime": since}],
        "addresses": [{"type": "InternalIP", "address": host}, {"type": "Hostname", "address": name}],
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
