"""The steps of `make demo-edge` while all nodes are connected: leafs, streams, and which NATS a pod talks to."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nats.aio.client import Client as NatsClient

from edgefarm import names
from localcluster.client import DAEMON_SETS, SECRETS, Json, has_condition
from localcluster.demo.edge.plant import EDGE, NETWORK, Plant, messages_in, readings_in
from localcluster.demo.kubectl import kubectl
from localcluster.demo.observer import eventually
from localcluster.demo.report import CheckFailed
from localcluster.platform import ROOT

EXAMPLE: Final = ROOT / "examples" / "edge"
#: The nodes of the demo; the first two belong to the site from the beginning.
EDGE_NODES: Final = ("edge-1", "edge-2", "edge-3")
CLOUD: Final = "cloud"
_STREAMS: Final = (("line", "readings-edge"), ("control", "readings"), ("control", "orders"), ("line", "orders-edge"))


@dataclass
class EdgeDemo:
    """The demo's world; every public method is one step and returns one sentence of what was seen."""

    plant: Plant
    note: Callable[[str], None]
    #: Readings that each node's station has stored.
    stored: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EDGE_NODES, 0))

    async def apply_example(self) -> str:
        """`kubectl apply -f examples/edge`."""
        applied = await kubectl(self.plant.platform, "apply", "-f", str(EXAMPLE))
        for line in applied:
            self.note(f"    {line}")
        return f"kubectl applied {len(applied)} objects"

    async def leafs_run_where_selected(self) -> str:
        """Leafs run on the two labelled nodes, and the hub sees them."""
        status = await self._leafs_on(EDGE_NODES[:2])
        shown = ", ".join(f"{node['domain']} ({node['rtt']})" for node in status.values())
        return f"connected: {shown}; none on {EDGE_NODES[2]} and {CLOUD}"

    async def leafs_hold_two_restricted_users(self) -> str:
        """Each leaf has one connection in the network's account and one in the system account."""
        page = await self.plant.at_leaf(EDGE_NODES[0], "leafz")
        accounts = {entry["account"] for entry in page["leafs"]}
        network = (await self.plant.observer.network(NETWORK))["status"]["account"]
        if len(accounts) != 2 or network not in accounts:
            raise CheckFailed(f"the leaf is connected in the accounts {sorted(accounts)}")
        secrets, _ = await self.plant.kube.list(SECRETS, names.CONTROLLER_NAMESPACE)
        holding = [obj["metadata"]["name"] for obj in secrets if "nats.creds" in (obj.get("data") or {})]
        if holding:
            raise CheckFailed(f"credentials stand in the Secrets {holding}")
        return "one user in the network's account, one in SYS, both signed by Vault; no Secret holds credentials"

    async def streams_exist_everywhere(self) -> str:
        """All four Streams are Ready; the edge streams exist in each leaf's domain."""
        for namespace, name in _STREAMS:
            await eventually(f"Stream {name} is Ready", partial(self._is_ready, namespace, name), within=60)
        edge = await self.plant.locations("line", "readings-edge")
        expected = {names.leaf_domain(NETWORK, node) for node in EDGE_NODES[:2]}
        if edge.keys() != expected:
            raise CheckFailed(f"the edge stream is in the domains {sorted(edge)}")
        return f"READINGS and ORDERS_COPY in {', '.join(sorted(expected))}; ALL_READINGS and ORDERS in main"

    async def pods_use_the_nearest_server(self) -> str:
        """A pod on an edge node talks to the leaf of its node, a pod elsewhere to the hub."""
        await self.plant.kube.wait_for(DAEMON_SETS, "station", "line", until=_all_available, timeout=60)
        for node in EDGE_NODES[:2]:
            await eventually(f"the station on {node} talks to its leaf", partial(self._at_leaf, node), within=60)
        for node in (EDGE_NODES[2], CLOUD):
            await eventually(f"the station on {node} talks to the hub", partial(self._at_hub, node), within=60)
        return (
            f"stations on {EDGE_NODES[0]} and {EDGE_NODES[1]} at their leafs, the others at the hub; one pod template"
        )

    async def a_label_moves_a_node(self) -> str:
        """Labelling the third node adds a leaf, whose pods go over to it; removing the label takes both back."""
        node = EDGE_NODES[2]
        await self.plant.label(node, EDGE)
        await self._leafs_on(EDGE_NODES)
        await eventually(f"the station on {node} goes to the leaf", lambda: self._at_leaf(node), within=90)
        await eventually("the stream is there, too", lambda: self._is_ready("line", "readings-edge"), within=60)
        domains = await eventually("three domains", lambda: self._domains(3), within=60)
        await self.plant.label(node, None)
        await self._leafs_on(EDGE_NODES[:2])
        await eventually(f"the station on {node} goes back to the hub", lambda: self._at_hub(node), within=90)
        await self.plant.label(node, EDGE)
        await self._leafs_on(EDGE_NODES)
        await eventually(f"the station on {node} is at the leaf", lambda: self._at_leaf(node), within=90)
        await eventually("three domains", lambda: self._domains(3), within=60)
        return f"{node}: leaf, stream in {domains} domains, gone, and back; its station went along"

    async def streams_are_linked(self) -> str:
        """What every node stores is once in the hub; what the hub stores is on every node."""
        for node in EDGE_NODES:
            self.stored[node] = await self.plant.publish(node, 100)
        async with self.plant.control() as control:
            await control.jetstream().publish("order.press", b"stop", timeout=5)
        await self.collect(within=60)
        await eventually("every node has the order", self._order_everywhere, within=60)
        return f"100 readings of each of {len(EDGE_NODES)} nodes, each once in ALL_READINGS; the order on every node"

    # -- what the steps look at --------------------------------------------------------------------------------------

    async def collect(self, *, within: float) -> None:
        """Wait until the main stream has as many readings as all stations have stored, and see that each is there
        once and in order."""
        expected = sum(self.stored.values())
        async with self.plant.control() as control:
            await eventually(
                f"ALL_READINGS holds {expected} readings", lambda: _holds(control, expected), within=within
            )
            found = await readings_in(control, "ALL_READINGS")
        wrong = [node for node, count in self.stored.items() if found.get(node, []) != list(range(count))]
        if wrong:
            raise CheckFailed(f"ALL_READINGS holds lost, doubled or disordered readings of {', '.join(wrong)}")

    async def _leafs_on(self, nodes: Collection[str]) -> dict[str, Json]:
        return await eventually(
            f"leafs are connected on {', '.join(nodes)} and nowhere else", lambda: self._exactly(nodes), within=60
        )

    async def _exactly(self, nodes: Collection[str]) -> dict[str, Json] | None:
        status = await self.plant.nodes_in_status()
        here = status.keys() == set(nodes) == (await self.plant.leafs()).keys()
        return status if here and all(node["connected"] for node in status.values()) else None

    async def _is_ready(self, namespace: str, name: str) -> bool:
        return has_condition("Ready")(await self.plant.stream(namespace, name))

    async def _domains(self, count: int) -> int | None:
        locations = await self.plant.locations("line", "readings-edge")
        present = [entry for entry in locations.values() if entry["state"] == "Present"]
        return count if len(present) == len(locations) == count else None

    async def _at_leaf(self, node: str) -> bool:
        return await self._name_of(node) in await self.plant.clients_at_leaf(node)

    async def _at_hub(self, node: str) -> bool:
        return await self._name_of(node) in await self.plant.clients_at_hub()

    async def _name_of(self, node: str) -> str:
        return f"line/{(await self.plant.station(node))['metadata']['name']}"

    async def _order_everywhere(self) -> bool:
        copies = await self.plant.locations("line", "orders-edge")
        return len(copies) == len(EDGE_NODES) and all(copy.get("messages") == 1 for copy in copies.values())


async def _holds(client: NatsClient, least: int) -> bool:
    return await messages_in(client, "ALL_READINGS") >= least


def _all_available(obj: Json | None) -> bool:
    status = (obj or {}).get("status", {})
    return bool(status.get("numberAvailable") == status.get("desiredNumberScheduled") == len(EDGE_NODES) + 1)
