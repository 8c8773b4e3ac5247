"""A site for fault tests: examples/edge on a platform whose nodes can be cut off, killed and rebooted one by one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from edgefarm import names
from edgefarm.nats import jwt
from edgefarm.nats.creds import parse_creds
from localcluster.chart import read_manifests, selector
from localcluster.client import DEPLOYMENTS, PODS, Json
from localcluster.daprd import write_launcher
from localcluster.demo.edge.outage import OutageDemo, messages_by_stream
from localcluster.demo.edge.plant import EDGE, NETWORK, SITE, Plant, get_json
from localcluster.demo.edge.steps import EDGE_NODES, EXAMPLE
from localcluster.demo.observer import Observer, eventually
from localcluster.node.spec import NodeSpec
from localcluster.platform import PlatformOptions
from tests.e2e.given import installed

_JETSTREAM: Final = "jsz?streams=1&accounts=1"
#: Both have a leaf. The reconciler runs on the node beside them, which comes first by name, and outlives their reboots.
NODES: Final = EDGE_NODES[:2]
_CLOUD: Final = "cloud"
_CONTROLLER: Final = "network-controller"
#: Seconds for what takes a few on an idle machine: builds run on machines with two busy cores.
PATIENCE: Final = 90.0
#: Seconds until streams of the hub follow those of a node that returned: NATS looks for them every half minute or so.
CATCH_UP: Final = 150.0


@dataclass
class Site(OutageDemo):
    """The demo's plant with two nodes, and the faults that the demo does not show."""

    stored: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NODES, 0))

    # -- the beginning -----------------------------------------------------------------------------------------------

    async def settle(self, credentials: Mapping[str, str] | None = None) -> None:
        """Apply examples/edge, with other times of the credentials if wanted, and wait until all of it works."""
        for file in sorted(EXAMPLE.glob("*.yaml")):
            objects = read_manifests(file.read_text())
            for obj in objects:
                if obj["kind"] == "Network" and credentials is not None:
                    obj["spec"]["credentials"] = dict(credentials)
            await self.plant.kube.apply(objects)
        await self.leafs_run_where_selected()
        await self.streams_exist_everywhere()
        for node in NODES:
            await self.until_at_leaf(node)

    # -- faults ------------------------------------------------------------------------------------------------------

    async def kill(self, pod: Json, container: str) -> None:
        """kill -9 of a container's process, which is then started again."""
        found = await self._container(pod, container)
        os.kill(int(found["containerID"].removeprefix("local://")), signal.SIGKILL)

    async def kill_hub(self) -> None:
        """kill -9 of the main NATS, which is started again on its data and its ports."""
        platform = self.plant.platform
        port = int(platform.nats.url.rpartition(":")[2])
        platform.nats.process.signal(signal.SIGKILL)
        await asyncio.to_thread(platform.nats.process.wait, 10)
        platform.start_nats(port=port)

    async def kill_vault(self) -> int:
        """kill -9 of OpenBao; the port at which it is to come back."""
        platform = self.plant.platform
        platform.bao.process.signal(signal.SIGKILL)
        await asyncio.to_thread(platform.bao.process.wait, 10)
        return int(platform.bao.address.rpartition(":")[2])

    async def scale_reconciler(self, replicas: int) -> None:
        """End the reconciler and keep it away (0), or have it back (1); returns when that is so."""
        kube, namespace = self.plant.kube, names.CONTROLLER_NAMESPACE
        await kube.patch(DEPLOYMENTS, _CONTROLLER, {"spec": {"replicas": replicas}}, namespace)

        async def is_so() -> bool:
            pods, _ = await kube.list(PODS, namespace, labels=selector("controller"))
            deployment = await kube.get(DEPLOYMENTS, _CONTROLLER, namespace)
            return bool(len(pods) == replicas == deployment["status"].get("readyReplicas", 0))

        await eventually(f"there are {replicas} reconcilers", is_so, within=PATIENCE)

    async def cut_off(self, *nodes: str) -> None:
        """Cut the uplinks of nodes, and wait until their leafs have noticed."""
        for node in nodes:
            await self.plant.cut(node)
        for node in nodes:
            await eventually(f"the leaf of {node} is cut off", partial(self._has_no_uplink, node), within=PATIENCE)

    # -- a pod that loses its Policy ---------------------------------------------------------------------------------

    async def admit_visitor(self) -> None:
        """A pod with a Policy of its own on the first node; returns when it is connected to the leaf."""
        await self._admit_visitor()

    async def until_visitor_is_at_leaf(self) -> None:
        await eventually("the visitor is at the leaf", self._visitor_at_leaf, within=PATIENCE)

    async def until_visitor_is_refused(self) -> None:
        await eventually("the visitor is refused", self._visitor_left, within=PATIENCE)

    # -- what is seen ------------------------------------------------------------------------------------------------

    async def until_at_leaf(self, node: str) -> None:
        """Wait until the station of a node is connected, and to its leaf."""
        await eventually(f"the station on {node} is at its leaf", partial(self._works_at_leaf, node), within=PATIENCE)

    async def until_neighbours_hear(self, node: str) -> None:
        """Wait until the station of a node has heard itself on a live subject."""
        before = (await self.plant.ask_station(node))["heard"]
        await eventually(f"live messages on {node}", partial(self._heard_more, node, before), within=PATIENCE)

    async def until_connected(self, *nodes: str) -> None:
        """Wait until leafs have their two connections to the hub."""
        for node in nodes:
            await eventually(f"the leaf of {node} is connected", partial(self._has_uplink, node), within=PATIENCE)

    async def held_at(self, node: str) -> int:
        """Readings that the leaf of a node has stored."""
        return sum(messages_by_stream(await self.plant.at_leaf(node, _JETSTREAM), "READINGS"))

    async def held_by_hub(self) -> int:
        """Readings that the hub has collected."""
        page = await get_json(f"{self.plant.platform.nats.monitor}/{_JETSTREAM}")
        return sum(messages_by_stream(page, "ALL_READINGS"))

    async def restarts(self, pod: Json, container: str) -> int:
        """How often a container was started again."""
        return int((await self._container(pod, container))["restartCount"])

    async def leaf_says(self, node: str) -> str:
        """What /readyz of the leaf's sidecar says."""
        return await self.plant.observer.sidecar((await self.plant.leafs())[node], "/readyz")

    async def leaf_logs(self, node: str) -> str:
        """What the leaf's sidecar has logged since the pod was made."""
        pod = (await self.plant.leafs())[node]["metadata"]
        file = f"{pod['namespace']}_{pod['name']}_{names.SIDECAR_CONTAINER}.log"
        return await asyncio.to_thread((self.plant.platform.node_folder / "logs" / file).read_text)

    async def station_says(self, node: str) -> str:
        """What /readyz of the station's sidecar says."""
        return await self.plant.observer.sidecar(await self.plant.station(node), "/readyz")

    async def leaf_user(self, node: str) -> Json:
        """The claims of the user with which a leaf connects to the hub, from the node's disk."""
        disk = self.plant.platform.node_folder / "nodes" / node
        folder = disk / names.leaf_data_folder(NETWORK).removeprefix("/")
        creds = await asyncio.to_thread((folder / "credentials" / "current" / "network.creds").read_text)
        return jwt.decode(parse_creds(creds)[0])

    async def station_user(self, node: str) -> Json:
        """The claims of the user with which the station of a node is connected to its leaf, once it is."""
        return await eventually(f"the station on {node} is connected", partial(self._user, node), within=PATIENCE)

    async def station_credentials_end_at(self, node: str) -> float:
        """When the credentials end that the station's sidecar has now, in Unix seconds."""
        page = await self.plant.observer.sidecar(await self.plant.station(node), "/metrics")
        figure = "edgefarm_sidecar_credentials_expiry_timestamp_seconds "
        return next(float(line.removeprefix(figure)) for line in page.splitlines() if line.startswith(figure))

    async def _container(self, pod: Json, name: str) -> Json:
        current = await self.plant.kube.get(PODS, pod["metadata"]["name"], pod["metadata"]["namespace"])
        status = current["status"]
        entries = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return next(dict(entry) for entry in entries if entry["name"] == name)

    async def _user(self, node: str) -> Json | None:
        name = await self._name_of(node)
        page = await self.plant.at_leaf(node, "connz?auth=1")
        users = [jwt.decode(found["jwt"]) for found in page["connections"] if "jwt" in found]
        return next((user for user in users if user["name"] == name), None)

    async def _works_at_leaf(self, node: str) -> bool:
        return bool((await self.plant.ask_station(node))["connected"]) and await self._at_leaf(node)

    async def _uplinks(self, node: str) -> int:
        return len((await self.plant.at_leaf(node, "leafz")).get("leafs") or ())

    async def _has_uplink(self, node: str) -> bool:
        return await self._uplinks(node) == 2

    async def _has_no_uplink(self, node: str) -> bool:
        return await self._uplinks(node) == 0


@asynccontextmanager
async def running_site(folder: Path, credentials: Mapping[str, str] | None = None) -> AsyncIterator[Site]:
    """A platform on which examples/edge works, with short times so that retries and renewals are seen soon."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    options = PlatformOptions(
        daprd=write_launcher(folder),
        kubebuilder_assets=Path(assets) if assets else None,
        node_specs=(NodeSpec(_CLOUD), *(NodeSpec(node, {SITE: EDGE}) for node in NODES)),
        leafs=True,
        uplinks=True,
        renew_every="5s",
        lifetime="1h",
        keys={"rotateEvery": "90d", "overlap": "2h"},
        resync="10s",
    )
    async with installed(folder, options) as platform:
        observer = Observer.of(platform)
        try:
            site = Site(Plant(observer), note=lambda _line: None)
            await site.settle(credentials)
            yield site
        finally:
            await observer.system.close()
