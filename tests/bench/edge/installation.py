"""Ours: OpenBao, API server, hub and the real reconciler, and leafs from nothing but what Vault tells a leaf.

There are no nodes: the benchmark makes the pods of leafs by hand and starts their nats-servers with the configuration
that the sidecar would render, so that fifty of them fit on one machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from edgefarm import names
from edgefarm.api.crd import definitions
from edgefarm.vault import Vault
from localcluster.platform import ROOT
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.ports import CONFIGMAP, EDGE_NETWORK, NETWORK, NODE, POD, POLICY, STREAM, Kind, Object
from reconciler.settings import KubernetesSettings
from reconciler.status import find_condition
from reconciler.users import network_user
from reconciler.vault_session import VaultSession
from tests.bench.edge.wire import Login, Target
from tests.leafkit import Leaf
from tests.reconciler.leafs import make_leaf
from tests.reconciler.world import World, install_definitions, make_namespace

EDGE = "bench-edge"
TENANT = "tenant"
POLICY_NAME = "sensor"
_LIMITS = {"filestorage": "2Gi", "inmemorystorage": "64Mi"}


async def until(condition: Callable[[], Awaitable[bool]], what: str, within: float = 60, pause: float = 0.02) -> None:
    """Return when the condition holds; TimeoutError says what did not happen."""
    deadline = time.monotonic() + within
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {within:g} s: {what}")
        await asyncio.sleep(pause)


@dataclass
class Installation:
    """One network with a Policy and an EdgeNetwork in a running installation."""

    folder: Path
    world: World
    kube: KubeClient
    session: VaultSession
    reconciler: LocalProcess
    network: str = "bench"
    leafs: dict[str, Leaf] = field(default_factory=dict)

    # -- objects -----------------------------------------------------------------------------------------------------

    async def create(
        self, kind: Kind, called: str, /, namespace: str = names.CONTROLLER_NAMESPACE, **spec: Any
    ) -> None:
        """Create an object of ours."""
        metadata = {"name": called, "namespace": namespace}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        await self.kube.create(kind, body)

    async def is_ready(self, kind: Kind, name: str, namespace: str = names.CONTROLLER_NAMESPACE) -> bool:
        """Whether its condition Ready is true."""
        obj = await self.kube.get(kind, namespace, name)
        condition = find_condition(obj, "Ready") if obj else None
        return condition is not None and condition["status"] == "True"

    async def make_network(self) -> None:
        """Network, Policy and EdgeNetwork, and wait until leafs can log in."""
        await self.create(NETWORK, self.network, namespaces=[TENANT], limits=_LIMITS)
        await self.create(POLICY, POLICY_NAME, TENANT, allowpub=["live.>", "readings.>"], allowsub=["live.>"])
        await self.create(EDGE_NETWORK, EDGE, network=self.network, nodeSelector={"site": "bench"}, limits=_LIMITS)
        await until(lambda: self.is_ready(NETWORK, self.network), "the Network is Ready")
        await until(lambda: self.is_ready(POLICY, POLICY_NAME, TENANT), "the Policy is Ready")

    async def present(self, stream: str) -> int:
        """In how many domains the status of a Stream says that it is present."""
        obj = await self.kube.get(STREAM, TENANT, stream)
        locations = ((obj or {}).get("status") or {}).get("locations") or ()
        return sum(1 for entry in locations if entry["state"] == "Present")

    # -- leafs -------------------------------------------------------------------------------------------------------

    async def start_leafs(self, nodes: Sequence[str], within: float = 60) -> None:
        """Start leafs on so many nodes that do not exist, and wait until the status says that they are connected."""
        for node in nodes:
            leaf = await asyncio.to_thread(make_leaf, self, self.folder / "leafs" / node, EDGE, node)
            self.leafs[node] = leaf.start()  # in this thread, which lives as long as the server shall
            await self._make_node(node)
        await until(lambda: self.are_connected(nodes), "all leafs connected", within)

    async def restart_leaf(self, node: str, hub_port: int | None = None) -> None:
        """Start a leaf again, with another way to the hub's listener for leafs."""
        leaf = self.leafs[node]
        port = hub_port or self.hub_leaf_port
        leaf.change(uplink=replace(leaf.server.uplink, urls=(f"tls://127.0.0.1:{port}",)))
        leaf.stop()
        leaf.start()
        await leaf.until_connected(60)

    async def are_connected(self, nodes: Sequence[str]) -> bool:
        """Whether the EdgeNetwork's status says so of all these nodes."""
        obj = await self.kube.get(EDGE_NETWORK, names.CONTROLLER_NAMESPACE, EDGE)
        entries = ((obj or {}).get("status") or {}).get("nodes") or ()
        return set(nodes) <= {entry["name"] for entry in entries if entry["connected"]}

    async def _make_node(self, node: str) -> None:
        """The node and the leaf's pod on it, as the API server would have them."""
        about = {"name": node, "labels": {"site": "bench"}}
        await self.kube.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": about})
        labels = {
            names.LABEL_OF_NETWORK: self.network,
            names.LABEL_TYPE: names.TYPE_LEAF,
            names.LABEL_EDGE_NETWORK: EDGE,
        }
        metadata = {"name": f"leaf-{node}", "namespace": names.CONTROLLER_NAMESPACE, "labels": labels}
        spec = {"nodeName": node, "serviceAccountName": names.leaf_workload(EDGE), "containers": [_CONTAINER]}
        await self.kube.create(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    # -- clients -----------------------------------------------------------------------------------------------------

    @property
    def hub_leaf_port(self) -> int:
        """Where the hub listens for leafs."""
        return _port(self.world.hub.leaf_url)

    def sensor(self) -> Login:
        """Credentials under the Policy's scope, got as a sidecar gets them."""
        return Login(*self.world.credentials(self.network, TENANT, POLICY_NAME))

    def at_leaf(self, node: str, login: Login) -> Target:
        """A client of a leaf."""
        return Target(self.leafs[node].server.client_port, self.world.authority.pem, login)

    def at_hub(self, login: Login) -> Target:
        """A client of the hub."""
        return Target(_port(self.world.hub.url), self.world.authority.pem, login)

    async def controller(self) -> Login:
        """Credentials that may manage streams in the hub and in every leaf."""
        return Login(*await network_user(self.session, self.network, datetime.now(UTC)))

    async def stop(self) -> None:
        """Stop everything."""
        for leaf in self.leafs.values():
            leaf.stop()
        self.reconciler.stop()
        await self.session.close()
        await self.kube.close()
        self.world.stop()


_CONTAINER: Object = {"name": "nats", "image": "nats"}


@asynccontextmanager
async def installed(folder: Path, authority: Authority) -> AsyncIterator[Installation]:
    """An installation with its network; nothing is left of it after the block."""
    openbao = OpenBao.start(folder / "openbao", authority)
    try:
        world = World.start(folder / "world", authority, openbao)
        kube = await KubeClient.connect(KubernetesSettings(None, "", 0, world.api.kubeconfig))
        token = folder / "vault-token"
        token.write_text(world.reviewer.token(names.CONTROLLER_NAMESPACE, "network-controller"))
        session = VaultSession(Vault(world.admin.settings), token)
        installation = Installation(folder, world, kube, session, _start_reconciler(folder, world, token))
        try:
            await install_definitions(kube, list(definitions().values()))
            await make_namespace(kube, TENANT)
            await kube.create(CONFIGMAP, _configuration(world))
            await installation.make_network()
            yield installation
        finally:
            await installation.stop()
    finally:
        openbao.stop()


def _start_reconciler(folder: Path, world: World, token: Path) -> LocalProcess:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "EDGEFARM_POD_NAME": "bench",
        "KUBECONFIG": str(world.api.kubeconfig),
        "EDGEFARM_VAULT_TOKEN_FILE": str(token),
        "EDGEFARM_HEALTH_HOST": "127.0.0.1",
        "EDGEFARM_HEALTH_PORT": str(free_port()),
    }
    command = [sys.executable, "-m", "reconciler"]
    return LocalProcess.start("reconciler", command, log=folder / "reconciler.log", env=environment)


def _configuration(world: World) -> Object:
    settings, pem = world.admin.settings, world.authority.pem
    vault = {"deploy": False, "address": settings.address, "caBundle": pem, "authMount": settings.auth_mount}
    vault |= {"transitMount": settings.transit_mount, "kvMount": settings.kv_mount}
    nats = {"deploy": False, "urls": [world.hub.url], "leafUrls": [world.hub.leaf_url], "caBundle": pem}
    value = {"vault": vault, "nats": nats, "webhook": {"issueCertificate": False}}
    metadata = {"name": names.CONFIGMAP, "namespace": names.CONTROLLER_NAMESPACE}
    data = {"config.yaml": yaml.safe_dump(json.loads(json.dumps(value)))}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
