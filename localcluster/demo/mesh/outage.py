"""The steps of `make demo-mesh` in which something is missing: servers, a host's memory, a right interface, a host."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Final

from edgefarm import names
from localcluster.client import is_gone
from localcluster.demo.mesh.hosts import INTERFACE, Host
from localcluster.demo.mesh.plant import EDGE_DEVICES
from localcluster.demo.mesh.steps import FALL_BACK, MeshDemo
from localcluster.demo.mesh.topology import LAN_ADDRESS, SERVICE_ADDRESS
from localcluster.demo.observer import eventually
from localcluster.demo.report import CheckFailed

#: What somebody else has made on a host.
_FOREIGN: Final = "uplink7"


@dataclass
class OutageDemo(MeshDemo):
    """Goes on where `MeshDemo` ends."""

    known: dict[str, str] = field(default_factory=dict)
    """The hosts' addresses before the servers were stopped."""

    async def mistakes_reach_the_user(self) -> str:
        """What a host cannot do changes nothing on it, and its words stand in the EdgeDevice."""
        taken = await self._somebody_elses_interface(self.third)
        route = await self._a_route_that_exists(self.one, self.other)
        return f"Configured of {self.third.device}: {taken}; of {self.other.device}: {route}"

    async def a_gateway_dies(self) -> str:
        """The gateway that carries everything loses its power: the other one takes over, and gives it back later."""
        dead = self.plant.preferred
        other = next(gateway for gateway in self.plant.gateways if gateway is not dead)
        pings = self.plant.start_pings(self.one, SERVICE_ADDRESS)
        await eventually("pings run", lambda: self.plant.answered(self.one.space, [SERVICE_ADDRESS]))
        dead.lose_power()
        self.plant.topology.serve_mesh_by(other.node)  # as the cluster's routers would
        await eventually(
            "a Service answers", lambda: self.plant.answered(self.one.space, [SERVICE_ADDRESS]), within=FALL_BACK
        )
        seen = await self.plant.stop_pings(pings)
        await self.plant.ready([other, *self.plant.edges])
        dead.start()
        self.plant.topology.serve_mesh_by(dead.node)
        await self.plant.ready([dead, *self.plant.edges])
        pairs = await self.plant.all_answer(within=60)
        return (
            f"{other.device} took over after a gap of {seen['longestGap']:.1f} s; all {pairs} pairs answer again "
            f"through {dead.device}"
        )

    async def servers_are_stopped(self) -> str:
        """Without reconciler, NATS and Vault traffic goes on."""
        address = await self.plant.mesh_address(self.other)
        self.known = {host.node: await self.plant.mesh_address(host) for host in self.plant.hosts.values()}
        await self.plant.reconciler(0)
        self.plant.platform.nats.stop()
        self.plant.platform.bao.stop()
        seen = (await self.plant.ping(self.one.space, [address], count=100, every=0.05))[address]
        if seen["answered"] < seen["sent"]:
            raise CheckFailed(f"{seen['sent'] - seen['answered']} of {seen['sent']} pings were lost")
        pairs = await self.plant.all_answer()
        return f"all {seen['sent']} pings were answered, and all {pairs} pairs"

    async def a_host_reboots_meanwhile(self) -> str:
        """Agent, abbot and interfaces are gone; with what is on the host's disk its tunnel returns by itself."""
        host = self.one
        if self.pod is not None:
            self.plant.topology.remove_pod(self.pod.space)
            self.pod = None
        host.lose_power()
        if INTERFACE in _interfaces(host):
            raise CheckFailed(f"{INTERFACE} is still there")
        started = asyncio.get_running_loop().time()
        host.start()
        pairs = await self.plant.all_answer(within=60)
        seconds = asyncio.get_running_loop().time() - started
        return f"{host.node} started again without anybody to ask: all {pairs} pairs answer after {seconds:.0f} s"

    async def servers_return(self) -> str:
        """Everything is started again: nothing has to be done by hand, and nobody gets another address."""
        platform = self.plant.platform
        platform.start_openbao(port=_port(platform.bao.address))
        platform.start_nats(port=_port(platform.nats.url))
        await self.plant.reconciler(1)
        await eventually("all agents have registered again", self._all_registered, within=120)
        await eventually("all statuses say so", self._all_connected, within=30)
        await self.plant.ready(list(self.plant.hosts.values()))
        now = {host.node: await self.plant.mesh_address(host) for host in self.plant.hosts.values()}
        if now != self.known:
            raise CheckFailed(f"addresses changed: {self.known} before, {now} after")
        return "all agents are connected, all EdgeDevices Ready, all addresses as before"

    async def a_host_leaves(self) -> str:
        """An EdgeDevice is deleted: its peers forget it, its key is worth nothing, its address is free."""
        host, address = self.third, await self.plant.mesh_address(self.third)
        key = str((await self.plant.device(host))["status"]["publicKey"])
        kube, namespace = self.plant.kube, names.CONTROLLER_NAMESPACE
        await kube.delete(EDGE_DEVICES, host.device, namespace)
        await kube.wait_for(EDGE_DEVICES, host.device, namespace, until=is_gone)
        others = [other for other in self.plant.hosts.values() if other is not host]
        await eventually("nobody has it as a peer", lambda: self._forgotten(others, key), within=10)
        if (await self.plant.ping(self.one.space, [address]))[address]["answered"]:
            raise CheckFailed(f"{address} still answers")
        host.stop()
        host.start()
        await eventually("its address is given away again", lambda: self._has_address(host, address), within=60)
        await self.plant.ready([host])
        if (await self.plant.device(host))["status"]["publicKey"] == key:
            raise CheckFailed(f"{host.device} has come back with the key with which it left")
        return f"{host.device} left: no host knows its key {key[:8]}…, and {address} was free again"

    # -- what the steps do and look at -------------------------------------------------------------------------------

    async def _somebody_elses_interface(self, host: Host) -> str:
        """The mesh's interface gets the name of one that somebody else has made."""
        host.space.ip("link", "add", _FOREIGN, "type", "bridge")
        before = _network(host)
        await self.plant.change(host, {"interfaceName": _FOREIGN})
        words = await eventually("the condition names the interface", lambda: self._refused(host, _FOREIGN), within=30)
        await self._is_unharmed(host, before)
        await self.plant.change(host, {"interfaceName": None})
        host.space.ip("link", "delete", _FOREIGN)
        await self.plant.ready([host])
        return words

    async def _a_route_that_exists(self, announcing: Host, host: Host) -> str:
        """A host announces its LAN, and another one has a LAN of the same addresses."""
        lan = str(ip_interface(f"{LAN_ADDRESS}/24").network)
        before = _network(host)
        await self.plant.change(announcing, {"extraAllowedCIDRs": [lan]})
        words = await eventually("the condition names the network", lambda: self._refused(host, lan), within=30)
        await self._is_unharmed(host, before)
        await self.plant.change(announcing, {"extraAllowedCIDRs": None})
        await self.plant.ready([announcing, host])
        return words

    async def _is_unharmed(self, host: Host, before: str) -> None:
        if (after := _network(host)) != before:
            raise CheckFailed(f"{host.node} was not put back as it was: {before} before, {after} after")
        address = await self.plant.mesh_address(host)
        others = [other.space for other in self.plant.edges if other is not host]
        await eventually("its tunnel works", lambda: self.plant.answered(others[0], [address]), within=10)

    async def _refused(self, host: Host, word: str) -> str | None:
        condition = await self.plant.condition(host, "Configured")
        message = str(condition.get("message", ""))
        return message if condition.get("status") == "False" and word in message else None

    async def _all_registered(self) -> bool:
        """What the new reconciler itself has seen: statuses may still be those of the old one."""
        observer = self.plant.observer
        metrics = await observer.metrics_of(await observer.controller())
        return f"edgefarm_agents {float(len(self.plant.hosts))}" in metrics.splitlines()

    async def _all_connected(self) -> bool:
        for host in self.plant.hosts.values():
            condition = await self.plant.condition(host, "AgentConnected")
            if condition.get("status") != "True":
                raise CheckFailed(f"{host.device}: {condition.get('message', 'nothing was said yet')}")
        return True

    async def _forgotten(self, hosts: list[Host], key: str) -> bool:
        if knowing := [host.device for host in hosts if key in host.peers()]:
            raise CheckFailed(f"{', '.join(knowing)} still has {key} as a peer")
        return True

    async def _has_address(self, host: Host, address: str) -> bool:
        return await self.plant.mesh_address(host) == address


def _interfaces(host: Host) -> set[str]:
    return {link["ifname"] for link in json.loads(host.space.ip("-json", "link", "show"))}


def _network(host: Host) -> str:
    """Interfaces, addresses and routes, as `ip` shows them to people."""
    return "".join(host.space.ip(*what) for what in (("-brief", "address"), ("route",), ("-6", "route"), ("rule",)))


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
