"""The demo's installation: the platform in the namespace `cluster`, and hosts of the mesh around it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgefarm import names
from localcluster.chart import selector
from localcluster.client import DEPLOYMENTS, PODS, SERVICE_ACCOUNTS, Json, Resource, is_gone
from localcluster.demo.mesh.hosts import LISTEN_PORT, Host, Tokens
from localcluster.demo.mesh.topology import (
    CLUSTER_ADDRESS,
    EDGES,
    GATEWAYS,
    MESH_BLOCK,
    POD_ADDRESS,
    POD_BLOCK,
    POD_BLOCKS,
    SERVICE_ADDRESS,
    SERVICE_BLOCK,
    Topology,
)
from localcluster.demo.observer import Observer, eventually
from localcluster.demo.report import CheckFailed
from localcluster.netns import Namespace
from localcluster.platform import Platform, PlatformOptions
from localcluster.process import LocalProcess

EDGE_DEVICES: Final = Resource(names.API_VERSION, "edgedevices")
#: Longer than any demo, also one that is kept running over a working day.
_TOKEN_SECONDS: Final = 86_400


@dataclass
class Plant:
    """Hosts, their EdgeDevices, and what goes between them."""

    observer: Observer[Platform]
    topology: Topology
    hosts: dict[str, Host] = field(default_factory=dict)
    preferred: Host = field(init=False)
    """The gateway that carries everything while it lives."""

    def __post_init__(self) -> None:
        self.platform = self.observer.platform
        self.kube = self.platform.kube

    async def install(self) -> None:
        """Service accounts, and for each host its Node, its agent's pod and files; EdgeDevices of the gateways."""
        accounts = [_account(name) for name in names.AGENT_SERVICE_ACCOUNTS.values()]
        await self.kube.apply(accounts)
        for node in (*GATEWAYS, *EDGES):
            role = names.ROLE_GATEWAY if node in GATEWAYS else names.ROLE_EDGE
            await self.kube.apply([_node(node), _pod(role, node)])
            host = Host(
                self.topology[node],
                node,
                role,
                self.platform.folder / "hosts" / node,
                self.platform.vault_address,
                self.platform.ca_bundle,
            )
            host.prepare(Tokens(*[await self._token(host, audience) for audience in _AUDIENCES]))
            self.hosts[node] = host
        # Where hosts outside reach a gateway is nothing that it could know.
        made = await self.kube.apply([_gateway(name, address) for name, address in GATEWAYS.items()])
        # All hosts prefer the oldest gateway, so that is where the cluster must send its answers.
        oldest = min((device["metadata"] for device in made), key=lambda meta: (meta["creationTimestamp"], meta["uid"]))
        self.preferred = next(host for host in self.gateways if host.device == oldest["name"])
        self.topology.serve_mesh_by(self.preferred.node)

    @property
    def edges(self) -> list[Host]:
        return [self.hosts[name] for name in EDGES]

    @property
    def gateways(self) -> list[Host]:
        return [self.hosts[name] for name in GATEWAYS]

    # -- Kubernetes --------------------------------------------------------------------------------------------------

    async def device(self, host: Host) -> Json:
        """The host's EdgeDevice; raises KubernetesRefused (404) where there is none."""
        return await self.kube.get(EDGE_DEVICES, host.device, names.CONTROLLER_NAMESPACE)

    async def mesh_address(self, host: Host) -> str:
        """Its assigned IPv4 address."""
        address = (await self.device(host)).get("status", {}).get("mesh", {}).get("ipv4")
        if not address:
            raise CheckFailed(f"{host.device} has no address in the mesh yet")
        return str(address)

    async def path(self, host: Host, other: Host) -> str:
        """What the host's status says about the way to another one: `relay`, `direct` or `none`."""
        peers = (await self.device(host)).get("status", {}).get("peers", [])
        return next((str(peer["path"]) for peer in peers if peer["name"] == other.device), "none")

    async def condition(self, host: Host, kind: str) -> Json:
        """One of its conditions, {} where there is none."""
        conditions = (await self.device(host)).get("status", {}).get("conditions", [])
        return next((entry for entry in conditions if entry["type"] == kind), {})

    async def ready(self, hosts: Sequence[Host], within: float = 60) -> None:
        """Wait until all these EdgeDevices are Ready."""
        for host in hosts:
            await eventually(f"{host.device} is Ready", partial(self._is_ready, host), within=within)

    async def change(self, host: Host, mesh: Json) -> None:
        """Change its EdgeDevice's `spec.network.mesh`; None removes a member."""
        change = {"spec": {"network": {"mesh": mesh}}}
        await self.kube.patch(EDGE_DEVICES, host.device, change, names.CONTROLLER_NAMESPACE)

    async def forget(self, host: Host) -> None:
        """Take a host out of the mesh and end what runs on it; when it is started again, it joins as a new one."""
        await self.kube.delete(EDGE_DEVICES, host.device, names.CONTROLLER_NAMESPACE)
        await self.kube.wait_for(EDGE_DEVICES, host.device, names.CONTROLLER_NAMESPACE, until=is_gone)
        host.stop()

    async def reconciler(self, replicas: int) -> None:
        """Run so many reconcilers, and wait until it is so."""
        change = {"spec": {"replicas": replicas}}
        namespace, name = names.CONTROLLER_NAMESPACE, "network-controller"
        await self.kube.patch(DEPLOYMENTS, name, change, namespace)

        async def settled() -> bool:
            pods, _ = await self.kube.list(PODS, namespace, labels=selector("controller"))
            return len(pods) == replicas

        await eventually(f"{replicas} reconcilers run", settled, within=60)

    async def _is_ready(self, host: Host) -> bool:
        ready = await self.condition(host, "Ready")
        if ready.get("status") == "True":
            return True
        raise CheckFailed(f"{ready.get('reason', 'no condition')}: {ready.get('message', 'nothing was said yet')}")

    async def _token(self, host: Host, audience: str) -> str:
        """A token bound to the agent's pod, as the kubelet gets it."""
        account = names.AGENT_SERVICE_ACCOUNTS[host.role]
        name = _pod(host.role, host.node)["metadata"]["name"]
        pod = await self.kube.get(PODS, name, names.CONTROLLER_NAMESPACE)
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": _TOKEN_SECONDS, "boundObjectRef": bound},
        }
        answer = await self.kube.create(
            SERVICE_ACCOUNTS, request, names.CONTROLLER_NAMESPACE, name=account, subresource="token"
        )
        return str(answer["status"]["token"])

    # -- packets -----------------------------------------------------------------------------------------------------

    async def ping(self, space: Namespace, addresses: Sequence[str], *, count: int = 3, every: float = 0.1) -> Json:
        """What `localcluster.demo.mesh.echo` says, by address."""
        command = [sys.executable, "-m", _ECHO, *addresses, "--count", str(count), "--every", str(every)]
        limit = count * (every + 0.1) * len(addresses) + 10
        output = await asyncio.to_thread(space.run, command, check=False, timeout=limit)
        result: Json = json.loads(output)
        return result

    async def answered(self, space: Namespace, addresses: Sequence[str]) -> bool:
        """Whether all addresses answer; CheckFailed names those that do not."""
        seen = await self.ping(space, addresses)
        if silent := [address for address, result in seen.items() if not result["answered"]]:
            raise CheckFailed(f"no answer to {space.name.partition('-')[2]} from {', '.join(silent)}")
        return True

    async def all_answer(self, within: float = 30) -> int:
        """Every host reaches every other one and the cluster, and the cluster every host; how many pairs these are."""
        addresses = {host.node: await self.mesh_address(host) for host in self.hosts.values()}
        pairs = 0
        for edge in self.edges:
            others = [address for node, address in addresses.items() if node != edge.node]
            targets = [*others, SERVICE_ADDRESS, POD_ADDRESS]
            await self._reaches(edge.space, targets, within)
            pairs += len(targets)
        targets = [addresses[edge.node] for edge in self.edges]
        await self._reaches(self.topology["clusternet"], targets, within)
        return pairs + len(targets)

    async def _reaches(self, space: Namespace, addresses: Sequence[str], within: float) -> None:
        what = f"{space.name.partition('-')[2]} reaches {', '.join(addresses)}"
        await eventually(what, lambda: self.answered(space, addresses), within=within)

    def start_pings(self, host: Host, address: str, every: float = 0.1) -> LocalProcess:
        """Ask an address again and again until `stop_pings`."""
        command = [sys.executable, "-m", _ECHO, address, "--count", "1000000", "--every", str(every)]
        log = host.folder / "echo.log"
        log.unlink(missing_ok=True)
        return host.space.start("echo", command, log=log)

    async def stop_pings(self, process: LocalProcess) -> dict[str, Any]:
        """End it and return what it saw of its only address."""
        await asyncio.to_thread(process.stop)
        lines = process.tail().splitlines()
        if not lines:
            raise CheckFailed("the pings said nothing at their end")
        result: dict[str, Any] = next(iter(json.loads(lines[-1]).values()))
        return result


def platform_options(daprd: Path, assets: Path | None = None) -> PlatformOptions:
    """The platform as the mesh needs it, in the namespace `cluster`."""
    return PlatformOptions(
        daprd=daprd,
        kubebuilder_assets=assets,
        server_host=CLUSTER_ADDRESS,
        mesh={
            "enabled": True,
            "ipv4Block": MESH_BLOCK,
            "podCIDRs": [POD_BLOCK],
            "serviceCIDRs": [SERVICE_BLOCK],
            "observeEvery": "2s",
        },
        resync="30s",
    )


_ECHO: Final = "localcluster.demo.mesh.echo"
_AUDIENCES: Final = (names.DEFAULT_AUDIENCE, names.AGENT_AUDIENCE)


def _account(name: str) -> Json:
    metadata = {"name": name, "namespace": names.CONTROLLER_NAMESPACE}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _node(name: str) -> Json:
    """A Node without a node runner: it is never ready, so nothing is placed on it."""
    blocks = [POD_BLOCKS[name]] if name in POD_BLOCKS else []
    spec = {"podCIDR": blocks[0], "podCIDRs": blocks} if blocks else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}


def _pod(role: str, node: str) -> Json:
    """The agent's pod: what its tokens are bound to. Its processes are those of `Host`."""
    account = names.AGENT_SERVICE_ACCOUNTS[role]
    container = {"name": "agent", "image": "ghcr.io/edgefarm/network-agent:latest"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{account}-{node}", "namespace": names.CONTROLLER_NAMESPACE},
        "spec": {"nodeName": node, "serviceAccountName": account, "hostNetwork": True, "containers": [container]},
    }


def _gateway(node: str, address: str) -> Json:
    metadata = {"name": names.edge_device(names.ROLE_GATEWAY, node), "namespace": names.CONTROLLER_NAMESPACE}
    spec = {"network": {"mesh": {"endpoint": f"{address}:{LISTEN_PORT}"}}}
    return {"apiVersion": names.API_VERSION, "kind": "EdgeDevice", "metadata": metadata, "spec": spec}
