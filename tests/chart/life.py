"""A life of one installation with everything switched on, in which its programs use each of their rights."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from edgefarm import names
from localcluster.chart import CHART, read_manifests
from localcluster.client import (
    CONFIG_MAPS,
    DAEMON_SETS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    Json,
    Resource,
    has_condition,
    is_gone,
)
from localcluster.demo.helm.platform import HelmPlatform
from localcluster.platform import ROOT
from tests.apiserver.rest import pod

NAMESPACE = names.CONTROLLER_NAMESPACE
NETWORKS = Resource(names.API_VERSION, "networks")
EDGE_NETWORKS = Resource(names.API_VERSION, "edgenetworks")
EDGE_DEVICES = Resource(names.API_VERSION, "edgedevices")
POLICIES = Resource(names.API_VERSION, "policies")
STREAMS = Resource(names.API_VERSION, "streams")
NACK_STREAMS = Resource("jetstream.nats.io/v1beta2", "streams")
NACK_ACCOUNTS = Resource("jetstream.nats.io/v1beta2", "accounts")

SERVERS = (names.VAULT_SERVER, names.NATS_SERVER)
#: Values with which every right is rendered that the reconciler has while it runs the servers.
EVERYTHING: Json = {
    "streams": {"driver": "nack"},
    "mesh": {"enabled": True, "podCIDRs": ["10.244.0.0/16"]},
    "agent": {"enabled": True},
}
#: Objects that somebody changes behind the reconciler's back.
_SPOILED = (
    (SERVICES, "leaf-plant"),
    (SECRETS, "leaf-plant"),
    (SERVICE_ACCOUNTS, "leaf-floor"),
    (CONFIG_MAPS, names.VAULT_SERVER),
    *((POD_DISRUPTION_BUDGETS, server) for server in SERVERS),
)
_MANAGER = "app.kubernetes.io/managed-by"


class Life:
    """The acts, in order. Each returns when its effects are seen."""

    def __init__(self, platform: HelmPlatform) -> None:
        self._platform = platform
        self._kube = platform.kube
        self._values = platform.values

    async def live(self) -> None:
        for act in (
            self.use_nack,
            self.join_nodes,
            self.make_networks,
            self.change_networks,
            self.spoil,
            self.change_servers,
            self.remove_leafs,
            self.remove_networks,
            self.give_servers_away,
        ):
            await act()

    async def use_nack(self) -> None:
        """Streams are NACK's business at first; there is no NACK, but that is not the reconciler's."""
        await self._kube.apply(
            [obj for obj in _examples() if obj["kind"] in ("Namespace", "Network") or _is_stored(obj)]
        )
        for resource in (NACK_STREAMS, NACK_ACCOUNTS):
            await self._until(lambda resource=resource: self._some(resource), f"{resource.plural} for NACK")  # type: ignore[misc]
        for obj in await self._all(NACK_STREAMS):
            await self._kube.patch(NACK_STREAMS, obj["metadata"]["name"], {"spec": {"subjects": ["x"]}}, NAMESPACE)
        await self._until(self._nack_streams_are_right, "NACK's streams as they were")
        await self._kube.delete(STREAMS, "readings", "factory")
        for network in await self._all(NETWORKS):
            await self._kube.delete(NETWORKS, network["metadata"]["name"], NAMESPACE)
        for resource in (NACK_STREAMS, NACK_ACCOUNTS):
            await self._until(lambda resource=resource: self._none(resource), f"no {resource.plural} for NACK")  # type: ignore[misc]
        await self._until(lambda: self._none(NETWORKS), "no Networks")
        await self._upgrade({"streams": {"driver": "native"}})

    async def join_nodes(self) -> None:
        """The node becomes an edge node with a node agent."""
        (node,) = (await self._kube.list(NODES))[0]
        name = node["metadata"]["name"]
        for folder in ("etc/abbot", "run/abbot"):
            (self._platform.folder / "nodes" / "nodes" / name / folder).mkdir(parents=True)
        labels = {"example.com/site": "floor", "network.edgefarm.io/edge": "true"}
        await self._kube.patch(NODES, name, {"metadata": {"labels": labels}})
        await self._until(lambda: self._some(EDGE_DEVICES), "the node's EdgeDevice")

    async def make_networks(self) -> None:
        """The networks of the examples, and a pod that belongs to none."""
        await self._kube.apply(_examples())
        for kind, name in ((NETWORKS, "foo"), (NETWORKS, "plant"), (EDGE_NETWORKS, "floor")):
            await self._ready(kind, name, NAMESPACE)
        await self._ready(STREAMS, "readings", "factory")
        await self._there(SERVICES, "leaf-plant")
        stranger = pod("stranger")
        stranger["metadata"]["labels"] = {"network.edgefarm.io": "foo"}
        await self._kube.create(PODS, stranger, "default")

    async def change_networks(self) -> None:
        """Another default policy, another namespace, another placement of leafs."""
        spec: Json = {"defaultNetworkPolicy": {"spec": {"allowpub": ["bye.>"]}}}
        await self._kube.patch(NETWORKS, "foo", {"spec": spec}, NAMESPACE)
        await self._shows(POLICIES, "foo", "factory", lambda copy: "bye.>" in copy["spec"]["allowpub"])
        await self._kube.patch(NETWORKS, "foo", {"spec": {"namespaces": ["factory"]}}, NAMESPACE)
        await self._gone(POLICIES, "foo", "office")
        tolerations = [{"operator": "Exists"}]
        await self._kube.patch(EDGE_NETWORKS, "floor", {"spec": {"tolerations": tolerations}}, NAMESPACE)
        await self._shows(DAEMON_SETS, "leaf-floor", NAMESPACE, lambda made: made["metadata"]["generation"] > 1)

    async def spoil(self) -> None:
        """Somebody changes what the reconciler keeps, and it puts that back."""
        for resource, name in _SPOILED:
            await self._kube.patch(resource, name, {"metadata": {"labels": {_MANAGER: "somebody"}}}, NAMESPACE)
        for resource, name in _SPOILED:
            await self._shows(resource, name, NAMESPACE, lambda obj: obj["metadata"]["labels"][_MANAGER] != "somebody")

    async def change_servers(self) -> None:
        """Pods and configuration of OpenBao and NATS change."""
        resources = {"resources": {"requests": {"cpu": "11m"}}}
        await self._upgrade({"vault": {"pod": resources}, "nats": {"pod": resources, "memoryStorage": "128Mi"}})
        for server in SERVERS:
            await self._shows(STATEFUL_SETS, server, NAMESPACE, _runs_with_11m)

    async def remove_leafs(self) -> None:
        """Leafs go with their EdgeNetwork, and without it when their network goes."""
        await self._kube.delete(EDGE_NETWORKS, "floor", NAMESPACE)
        await self._gone(SERVICES, "leaf-plant")
        await self._kube.apply([obj for obj in _examples() if obj["kind"] == "EdgeNetwork"])
        await self._there(DAEMON_SETS, "leaf-floor")
        for stream in await self._all(STREAMS):
            await self._kube.delete(STREAMS, stream["metadata"]["name"], stream["metadata"]["namespace"])
        await self._kube.delete(NETWORKS, "plant", NAMESPACE)
        await self._gone(DAEMON_SETS, "leaf-floor")

    async def remove_networks(self) -> None:
        """Nothing is left."""
        for resource in (EDGE_NETWORKS, NETWORKS, EDGE_DEVICES):
            for obj in await self._all(resource):
                await self._kube.delete(resource, obj["metadata"]["name"], NAMESPACE)
        await self._until(lambda: self._none(NETWORKS), "no Networks")

    async def give_servers_away(self) -> None:
        """Other servers are given: the reconciler takes down its own."""
        await self._upgrade(
            {
                "vault": {"deploy": False, "address": "https://127.0.0.1:9"},
                "nats": {"deploy": False, "urls": ["tls://127.0.0.1:9"]},
            }
        )
        for server in SERVERS:
            for resource in (STATEFUL_SETS, POD_DISRUPTION_BUDGETS, CONFIG_MAPS):
                await self._gone(resource, server)

    # -- what acts are made of ---------------------------------------------------------------------------------------

    async def _upgrade(self, values: Json) -> None:
        for part, changed in values.items():
            self._values[part] = {**self._values.get(part, {}), **changed}
        await self._platform.release.upgrade(CHART, self._values)

    async def _nack_streams_are_right(self) -> bool:
        return all(obj["spec"]["subjects"] != ["x"] for obj in await self._all(NACK_STREAMS))

    async def _all(self, resource: Resource) -> list[Json]:
        return (await self._kube.list(resource))[0]

    async def _some(self, resource: Resource) -> bool:
        return bool(await self._all(resource))

    async def _none(self, resource: Resource) -> bool:
        return not await self._all(resource)

    async def _ready(self, resource: Resource, name: str, namespace: str) -> None:
        await self._kube.wait_for(resource, name, namespace, until=has_condition("Ready"), timeout=30)

    async def _there(self, resource: Resource, name: str) -> None:
        await self._shows(resource, name, NAMESPACE, lambda _obj: True)

    async def _gone(self, resource: Resource, name: str, namespace: str = NAMESPACE) -> None:
        await self._kube.wait_for(resource, name, namespace, until=is_gone, timeout=30)

    async def _shows(self, resource: Resource, name: str, namespace: str, test: Callable[[Json], Any]) -> None:
        def until(obj: Json | None) -> bool:
            return obj is not None and bool(test(obj))

        await self._kube.wait_for(resource, name, namespace, until=until, timeout=30)

    async def _until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        end = time.monotonic() + 30
        while not await condition():
            assert time.monotonic() < end, f"not within 30 s: {what}"
            await asyncio.sleep(0.1)


def _examples() -> list[Json]:
    """Namespaces, Networks, EdgeNetworks, Policies and Streams of two examples."""
    paths = [path for name in ("quickstart", "edge") for path in sorted((ROOT / "examples" / name).glob("?-*.yaml"))]
    found = [obj for path in paths for obj in read_manifests(path.read_text())]
    return [obj for obj in found if obj["kind"] == "Namespace" or obj["apiVersion"] == names.API_VERSION]


def _is_stored(obj: Json) -> bool:
    return obj["kind"] == "Stream" and obj["metadata"]["namespace"] == "factory"


def _runs_with_11m(stateful_set: Json) -> bool:
    container, status = stateful_set["spec"]["template"]["spec"]["containers"][0], stateful_set["status"]
    wanted = (container["resources"].get("requests") or {}).get("cpu") == "11m"
    return wanted and status["currentRevision"] == status["updateRevision"] and status.get("readyReplicas") == 1
