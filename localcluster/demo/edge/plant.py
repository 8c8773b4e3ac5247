"""The plant of examples/edge as its operator sees it: nodes, leafs, stations, streams. It looks and acts only."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client as NatsClient
from nats.js.api import AckPolicy, ConsumerConfig

from edgefarm import names
from edgefarm.nats import jwt
from localcluster.client import NODES, PODS, Json
from localcluster.demo.credentials import connection, credentials_of
from localcluster.demo.observer import EDGE_NETWORKS, STREAMS, Observer
from localcluster.demo.report import CheckFailed
from localcluster.node.spec import REBOOT_ANNOTATION, UPLINK_ANNOTATION
from localcluster.platform import Platform

SITE: Final = "example.com/site"
NETWORK: Final = "plant"
EDGE: Final = "floor"
_MONITOR: Final = 8222
_STATION: Final = 8080
#: Seconds; storing ten thousand readings is one request to a station.
_PATIENCE: Final = 180


@dataclass
class Plant:
    """Looks at the platform on which examples/edge was applied."""

    observer: Observer[Platform]

    def __post_init__(self) -> None:
        self.platform = self.observer.platform
        self.kube = self.platform.kube

    # -- nodes -------------------------------------------------------------------------------------------------------

    async def label(self, node: str, value: str | None) -> None:
        """Say which site a node belongs to; None takes it out."""
        await self.kube.patch(NODES, node, {"metadata": {"labels": {SITE: value}}})

    async def cut(self, node: str) -> None:
        """Cut the node's uplink: every connection of its pods to NATS and Vault ends, and no new one is made."""
        await self._annotate(node, UPLINK_ANNOTATION, "cut")

    async def heal(self, node: str) -> None:
        """Connect the node again."""
        await self._annotate(node, UPLINK_ANNOTATION, None)

    async def reboot(self, node: str, number: int) -> None:
        """Cut the node's power: all its processes are killed, what was in memory is gone."""
        await self._annotate(node, REBOOT_ANNOTATION, str(number))

    async def _annotate(self, node: str, annotation: str, value: str | None) -> None:
        await self.kube.patch(NODES, node, {"metadata": {"annotations": {annotation: value}}})

    # -- leafs -------------------------------------------------------------------------------------------------------

    async def edge_network(self) -> Json:
        return await self.kube.get(EDGE_NETWORKS, EDGE, names.CONTROLLER_NAMESPACE)

    async def nodes_in_status(self) -> dict[str, Json]:
        """What the EdgeNetwork's status says of each node."""
        status = (await self.edge_network()).get("status") or {}
        return {entry["name"]: entry for entry in status.get("nodes") or ()}

    async def leafs(self) -> dict[str, Json]:
        """Leaf pods by node."""
        labels = f"{names.LABEL_TYPE}={names.TYPE_LEAF},{names.LABEL_OF_NETWORK}={NETWORK}"
        pods, _ = await self.kube.list(PODS, names.CONTROLLER_NAMESPACE, labels=labels)
        return {pod["spec"]["nodeName"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    async def at_leaf(self, node: str, page: str) -> Json:
        """A page of the monitoring port of the node's nats-server."""
        leafs = await self.leafs()
        if node not in leafs:
            raise CheckFailed(f"there is no leaf on {node}")
        return await get_json(f"http://{leafs[node]['status']['podIP']}:{_MONITOR}/{page}")

    async def clients_at_leaf(self, node: str) -> set[str]:
        """Names of the pods (`namespace/name`) that are connected to the node's leaf."""
        return _users(await self.at_leaf(node, "connz?auth=1"))

    async def clients_at_hub(self) -> set[str]:
        """Names of the pods that are connected to the main NATS."""
        return _users(await get_json(f"{self.platform.nats_monitor}/connz?auth=1&limit=1000"))

    # -- stations ----------------------------------------------------------------------------------------------------

    async def station(self, node: str) -> Json:
        """The station's pod on a node, once its application runs."""
        pods, _ = await self.kube.list(PODS, "line", labels="app=station")
        for pod in pods:
            if pod["spec"].get("nodeName") == node and "deletionTimestamp" not in pod["metadata"]:
                return pod
        raise CheckFailed(f"there is no station on {node}")

    async def ask_station(self, node: str, path: str = "/", *, post: bool = False) -> Json:
        """What the station answers."""
        pod = await self.station(node)
        return await get_json(f"http://{pod['status']['podIP']}:{_STATION}{path}", post=post)

    async def publish(self, node: str, count: int) -> int:
        """Have the station store so many readings; how many it has stored since its start."""
        answer = await self.ask_station(node, f"/publish?count={count}", post=True)
        if "error" in answer:
            raise CheckFailed(f"the station on {node}: {answer['error']}")
        return int(answer["published"])

    # -- streams -----------------------------------------------------------------------------------------------------

    async def stream(self, namespace: str, name: str) -> Json:
        return await self.kube.get(STREAMS, name, namespace)

    async def locations(self, namespace: str, name: str) -> dict[str, Json]:
        """What a Stream's status says of each JetStream domain."""
        status = (await self.stream(namespace, name)).get("status") or {}
        return {entry["domain"]: entry for entry in status.get("locations") or ()}

    @asynccontextmanager
    async def control(self) -> AsyncIterator[NatsClient]:
        """A connection to the main NATS with the rights of the Policy `control`."""
        async with (
            credentials_of(self.platform, NETWORK, "control", "control") as creds,
            connection(self.platform, creds, []) as client,
        ):
            yield client


async def messages_in(client: NatsClient, stream: str) -> int:
    """How many messages a stream holds."""
    answer = await client.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5)
    return int(json.loads(answer.data)["state"]["messages"])


async def readings_in(client: NatsClient, stream: str) -> dict[str, list[int]]:
    """All readings of a stream in its order: node to numbers."""
    left = await messages_in(client, stream)
    found: dict[str, list[int]] = {}
    config = ConsumerConfig(ack_policy=AckPolicy.NONE)
    subscription = await client.jetstream().pull_subscribe("sensor.>", stream=stream, config=config)
    while left:
        batch = await subscription.fetch(min(left, 1000), timeout=10)
        for message in batch:
            reading: dict[str, Any] = json.loads(message.data)
            found.setdefault(reading["node"], []).append(reading["number"])
        left -= len(batch)
    return found


def _users(page: Json) -> set[str]:
    return {str(jwt.decode(found["jwt"])["name"]) for found in page["connections"] if "jwt" in found}


async def get_json(url: str, *, post: bool = False) -> Json:
    """What a station or a server's monitoring answers."""

    def get() -> Json:
        request = urllib.request.Request(url, method="POST" if post else "GET")
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:
            answer: Json = json.loads(response.read())
            return answer

    return await asyncio.to_thread(get)
