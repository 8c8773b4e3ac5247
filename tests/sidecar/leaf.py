"""A second nats-server that stands for the leaf of the pod's node, and what a test sees of the route."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass, field
from typing import Any

from tests.natskit import Connection, Hub
from tests.sidecar.world import SidecarPod, World

SUBJECT = "n"
#: A leaf is taken again soon, and looked for often.
QUICK = {"EDGEFARM_ROUTE_STEADY_SECONDS": "2", "EDGEFARM_ROUTE_SEARCH_SECONDS": "2"}


@dataclass
class Leaf:
    """A server with an authority of its own that knows the account, and what arrives at it and at the hub."""

    server: Hub
    received: dict[str, list[int]] = field(default_factory=lambda: {"leaf": [], "hub": []})

    @property
    def document(self) -> dict[str, Any]:
        """What the access document says of it."""
        return {"leaf": [self.server.url], "leafCa": self.server.authority.pem}

    async def kill(self) -> None:
        """End it without a word."""
        process = self.server.servers["hub-0"].process
        process.signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait, 5)

    async def start(self) -> None:
        """Start it again, on its port and data."""
        await asyncio.to_thread(self.server.start_server, "hub-0")

    async def administrator(self, world: World) -> Connection:
        """A connection to it that may do everything in the account."""
        return await Connection.open(self.server.url, self.server.authority, world.account.user("administrator"))

    async def listen(self, world: World, place: str) -> Connection:
        """Note down what arrives at one of the servers."""
        connection = await (self.administrator(world) if place == "leaf" else world.administrator())

        async def keep(message: Any) -> None:
            self.received[place].append(int(message.data))

        await connection.client.subscribe(f"{SUBJECT}.>", cb=keep)
        await connection.client.flush()
        return connection


def route(pod: SidecarPod) -> str:
    """The route as the metrics tell it; empty before it is chosen."""
    lines = pod.get("/metrics").body.splitlines()
    chosen = [line for line in lines if line.startswith("edgefarm_sidecar_route{") and line.endswith(" 1")]
    return chosen[0].split('"')[1] if chosen else ""


def changes(pod: SidecarPod) -> int:
    """How often it changed."""
    lines = pod.get("/metrics").body.splitlines()
    [line] = [line for line in lines if line.startswith("edgefarm_sidecar_route_changes_total ")]
    return int(line.rpartition(" ")[2])
