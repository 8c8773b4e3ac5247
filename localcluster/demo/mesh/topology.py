"""The internet, homes and cluster of the demo and the benchmarks as network namespaces. No product in it.

```text
 edge-a ── nat-a ─┐                       ┌─ cluster (Kubernetes API, OpenBao, NATS, reconciler)
 edge-b ── nat-b ─┼────── internet ───────┼─ gateway-1 ─┐
 edge-c ──────────┘                       └─ gateway-2 ─┴─ clusternet (a Service and a pod)
```

Both homes have the same LAN, and both hosts in them the same address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from localcluster.netns import Namespace, Namespaces

#: Where agents reach OpenBao and NATS.
CLUSTER_ADDRESS: Final = "198.51.100.10"
GATEWAYS: Final = {"gateway-1": "198.51.100.22", "gateway-2": "198.51.100.26"}
#: As which address the internet sees an edge host.
EDGES: Final = {"edge-a": "203.0.113.6", "edge-b": "203.0.113.10", "edge-c": "203.0.113.14"}
HOMES: Final = {"edge-a": "nat-a", "edge-b": "nat-b"}
LAN_ADDRESS: Final = "192.168.1.10"

MESH_BLOCK: Final = "10.201.0.0/16"
POD_BLOCK: Final = "10.200.0.0/16"
SERVICE_BLOCK: Final = "10.96.0.0/16"
SERVICE_ADDRESS: Final = "10.96.0.10"
POD_ADDRESS: Final = "10.200.0.5"
POD_BLOCKS: Final = {"edge-a": "10.200.1.0/24", "edge-b": "10.200.2.0/24", "edge-c": "10.200.3.0/24"}

_LINK_TO_CLUSTERNET: Final = {"gateway-1": "172.31.1", "gateway-2": "172.31.2"}


class Topology:
    """The namespaces and what can be done to the connections between them."""

    def __init__(self, spaces: Namespaces) -> None:
        self._spaces = spaces
        internet = spaces.add("internet")
        internet.route_packets()
        for short, address in {"cluster": CLUSTER_ADDRESS, **GATEWAYS}.items():
            self._connect(spaces.add(short), address)
        for edge, address in EDGES.items():
            if edge in HOMES:
                self._connect(self._home(edge), address)
            else:
                self._connect(spaces.add(edge), address)
        self._clusternet()

    def __getitem__(self, short: str) -> Namespace:
        return self._spaces[short]

    def cut(self, one: str, other: str) -> None:
        """Let the internet carry nothing between these hosts' addresses until `mend`."""
        addresses = EDGES | GATEWAYS
        self["internet"].cut(addresses[one], addresses[other])

    def mend(self) -> None:
        """Take back every `cut`."""
        self["internet"].mend()

    def serve_mesh_by(self, gateway: str) -> None:
        """Let the cluster's own network send what is for the mesh to this gateway, as its routers would."""
        for block in (MESH_BLOCK, *POD_BLOCKS.values()):
            via = f"{_LINK_TO_CLUSTERNET[gateway]}.1"
            self["clusternet"].ip("route", "replace", block, "via", via, "src", POD_ADDRESS)

    def new_pod(self, short: str) -> Namespace:
        """An empty namespace, as a container runtime makes it for a pod."""
        return self._spaces.add(short)

    def remove_pod(self, space: Namespace) -> None:
        """End it with what runs in it."""
        self._spaces.remove(space)

    def _connect(self, space: Namespace, address: str) -> None:
        """Connect a namespace to the internet: the last /30 of its address, of which the router has the lower one."""
        start, _, last = address.rpartition(".")
        router = f"{start}.{int(last) - 1}"
        name = space.name.partition("-")[2]
        self._spaces.link(
            space, "eth0", self["internet"], name, a_addresses=[f"{address}/30"], b_addresses=[f"{router}/30"]
        )
        space.ip("route", "add", "default", "via", router)

    def _home(self, edge: str) -> Namespace:
        """A home router with one host behind it."""
        router, host = self._spaces.add(HOMES[edge]), self._spaces.add(edge)
        lan = LAN_ADDRESS.rpartition(".")[0]
        self._spaces.link(host, "eth0", router, "lan", a_addresses=[f"{LAN_ADDRESS}/24"], b_addresses=[f"{lan}.1/24"])
        host.ip("route", "add", "default", "via", f"{lan}.1")
        router.masquerade("eth0")
        return router

    def _clusternet(self) -> None:
        space = self._spaces.add("clusternet")
        for address in (SERVICE_ADDRESS, POD_ADDRESS):
            space.ip("address", "add", f"{address}/32", "dev", "lo")
        for gateway, link in _LINK_TO_CLUSTERNET.items():
            self._spaces.link(
                self[gateway], "pods", space, gateway, a_addresses=[f"{link}.1/30"], b_addresses=[f"{link}.2/30"]
            )
            for block in (POD_BLOCK, SERVICE_BLOCK):
                self[gateway].ip("route", "add", block, "via", f"{link}.2")
        self.serve_mesh_by(next(iter(GATEWAYS)))


@contextmanager
def topology() -> Iterator[Topology]:
    """All namespaces, connected; removed at the end with what runs in them."""
    with Namespaces() as spaces:
        yield Topology(spaces)
