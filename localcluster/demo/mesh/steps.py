"""The steps of `make demo-mesh` until the mesh carries everything: devices, pods, relayed and direct paths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from localcluster.client import Json
from localcluster.demo.mesh.hosts import Host
from localcluster.demo.mesh.plant import Plant
from localcluster.demo.mesh.pod import Pod
from localcluster.demo.mesh.topology import EDGES, SERVICE_ADDRESS
from localcluster.demo.observer import eventually
from localcluster.demo.report import CheckFailed

#: Seconds in which traffic must flow again after a direct path was cut.
FALL_BACK: Final = 30.0
_PINGS: Final = 200
#: An echo request or answer in WireGuard's envelope, rounded down.
_PING_BYTES: Final = 100


@dataclass
class MeshDemo:
    """What the steps share. `one` and `other` live in homes of their own."""

    plant: Plant
    note: Callable[[str], None]
    pod: Pod | None = field(default=None)

    @property
    def one(self) -> Host:
        return self.plant.hosts["edge-a"]

    @property
    def other(self) -> Host:
        return self.plant.hosts["edge-b"]

    @property
    def third(self) -> Host:
        return self.plant.hosts["edge-c"]

    async def agents_register(self) -> str:
        """Every agent proves its node; every host gets an EdgeDevice that knows the host's own addresses."""
        for index, edge in enumerate(EDGES):  # at first nothing gets from one edge host to another
            for later in list(EDGES)[index + 1 :]:
                self.plant.topology.cut(edge, later)
        await self.plant.install()
        for host in (*self.plant.gateways, *self.plant.edges):
            host.start()
        for host in self.plant.hosts.values():
            await eventually(f"{host.device} tells its addresses", partial(self._told, host), within=60)
        return f"{len(self.plant.hosts)} EdgeDevices tell node, role and the addresses of their hosts"

    async def the_mesh_comes_up(self) -> str:
        """Addresses are assigned, and every host has a live tunnel to a gateway."""
        await self.plant.ready(list(self.plant.hosts.values()))
        addresses = {host.device: await self.plant.mesh_address(host) for host in self.plant.hosts.values()}
        if len(set(addresses.values())) != len(addresses):
            raise CheckFailed(f"two devices have the same address: {addresses}")
        return ", ".join(f"{device} {address}" for device, address in sorted(addresses.items()))

    async def everybody_answers(self) -> str:
        """Every pair of hosts and the cluster reach each other both ways."""
        pairs = await self.plant.all_answer()
        return f"{pairs} pairs of hosts, a Service and a pod of the cluster answer each other"

    async def a_pod_is_attached(self) -> str:
        """A pod on an edge host, attached by our CNI plugin, reaches a Service and is reached from the cluster."""
        self.pod = Pod(self.one, self.plant.topology.new_pod("pod"))
        address = await eventually("the pod gets an address", self._attach, within=30)
        await eventually(
            f"the pod reaches the Service {SERVICE_ADDRESS}",
            lambda: self.plant.answered(self._attached.space, [SERVICE_ADDRESS]),
            within=20,
        )
        for short in ("clusternet", self.other.node):
            space = self.plant.topology[short]
            await eventually(f"{short} reaches it", partial(self.plant.answered, space, [address]))
        return f"pod {address} reaches Service {SERVICE_ADDRESS}; the cluster and {self.other.node} reach the pod"

    async def paths_are_relayed(self) -> str:
        """Where hosts cannot reach each other, a gateway carries what they say."""
        await eventually("the status says relay", lambda: self._path_is("relay"), within=30)
        relayed = await self._bytes_of_pings()
        if relayed < _PINGS * _PING_BYTES:
            raise CheckFailed(f"{_PINGS} pings were answered, but the gateways carried {relayed} bytes only")
        return f"{_PINGS} pings from {self.one.node} to {self.other.node}: the gateways carried {relayed} bytes"

    async def paths_become_direct(self) -> str:
        """With a way between them, hosts behind two home routers talk directly."""
        self.plant.topology.mend()
        started = time.monotonic()
        await eventually("the status says direct", lambda: self._path_is("direct"), within=90)
        seconds = time.monotonic() - started
        relayed = await self._bytes_of_pings()
        if relayed > _PINGS * _PING_BYTES / 2:
            raise CheckFailed(f"the status says direct, but the gateways carried {relayed} bytes of {_PINGS} pings")
        peer = await self._peer()
        return (
            f"direct {seconds:.0f} s after the way was free, handshake at {peer.get('lastHandshake')}; "
            f"of {_PINGS} pings the gateways carried {relayed} bytes (keepalives and probes)"
        )

    async def a_cut_path_falls_back(self) -> str:
        """The direct path is cut while pings run: the relay takes over."""
        address = await self.plant.mesh_address(self.other)
        pings = self.plant.start_pings(self.one, address)
        await eventually("pings run", lambda: self.plant.answered(self.one.space, [address]))
        self.plant.topology.cut(self.one.node, self.other.node)
        await eventually(
            "traffic flows again", lambda: self.plant.answered(self.one.space, [address]), within=FALL_BACK
        )
        await eventually("the status says relay", lambda: self._path_is("relay"), within=FALL_BACK)
        seen = await self.plant.stop_pings(pings)
        if seen["longestGap"] is None or seen["longestGap"] > FALL_BACK:
            raise CheckFailed(f"nothing was answered for {seen['longestGap']} s")
        ready = await self.plant.condition(self.one, "Ready")
        if ready.get("status") != "True":
            raise CheckFailed(f"{self.one.device} is not Ready over the relay: {ready}")
        self.plant.topology.mend()
        await eventually("the status says direct again", lambda: self._path_is("direct"), within=90)
        return f"a gap of {seen['longestGap']:.1f} s, then over the relay; direct again when the way was free"

    # -- what the steps do and look at -------------------------------------------------------------------------------

    @property
    def _attached(self) -> Pod:
        assert self.pod is not None
        return self.pod

    async def _attach(self) -> str:
        return self._attached.attach()

    async def _told(self, host: Host) -> bool:
        status = (await self.plant.device(host)).get("status", {})
        own = {
            address["local"]
            for link in json.loads(host.space.ip("-json", "-4", "address", "show", "dev", "eth0"))
            for address in link["addr_info"]
        }
        told = {str(address).partition("/")[0] for address in status.get("addresses", [])}
        return status.get("node") == host.node and status.get("role") == host.role and own <= told

    async def _path_is(self, path: str) -> bool:
        """Whether both ends say so."""
        pairs = ((self.one, self.other), (self.other, self.one))
        seen = [await self.plant.path(host, other) for host, other in pairs]
        if seen != [path, path]:
            raise CheckFailed(f"they say {' and '.join(seen)}")
        return True

    async def _peer(self) -> Json:
        peers = (await self.plant.device(self.one))["status"]["peers"]
        return next(peer for peer in peers if peer["name"] == self.other.device)

    async def _bytes_of_pings(self) -> int:
        """How much the gateways carried more after many pings between the two homes, all of them answered."""
        address = await self.plant.mesh_address(self.other)
        before = sum(gateway.transferred() for gateway in self.plant.gateways)
        seen = (await self.plant.ping(self.one.space, [address], count=_PINGS, every=0.005))[address]
        if seen["answered"] < _PINGS * 0.99:
            raise CheckFailed(f"only {seen['answered']} of {_PINGS} pings were answered")
        return sum(gateway.transferred() for gateway in self.plant.gateways) - before
