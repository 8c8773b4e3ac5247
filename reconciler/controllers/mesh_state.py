"""Keeps the roster of the mesh: built from the devices' statuses, anew when what all of it rests on has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

from edgefarm.addresses import Network
from edgefarm.api.edge_device import EdgeDevice
from reconciler.context import Context
from reconciler.controllers.mesh_devices import FoundDevice, base_member, node_cidrs, pod_cidrs, service_cidrs
from reconciler.controllers.mesh_hosts import MeshHosts
from reconciler.controllers.mesh_keys import MeshKeys
from reconciler.controllers.mesh_roster import Roster
from reconciler.desired.mesh.claims import Seniority
from reconciler.desired.mesh.overlaps import Ground, Wanted, pod_networks
from reconciler.mesh_configuration import MeshConfiguration
from reconciler.ports import EDGE_DEVICE, NODE, SERVICE_CIDR, Object


class MeshState:
    """The roster in force, for all workers."""

    def __init__(self, context: Context, hosts: MeshHosts, keys: MeshKeys) -> None:
        self._context = context
        self._hosts = hosts
        self._keys = keys
        self._building = asyncio.Lock()
        self._roster: Roster | None = None

    async def roster(self, configuration: MeshConfiguration) -> Roster:
        """The roster of this configuration. Raises VaultUnavailable and VaultRefused where keys are made here."""
        async with self._building:
            if self._roster is None or self._roster.configuration != configuration:
                self._roster = await self._build(configuration)
            return self._roster

    async def refresh(self, configuration: MeshConfiguration) -> bool:
        """Look again at the networks of the cluster, and begin anew when they are others now; whether they are."""
        async with self._building:
            before = self._roster
            if before is not None and before.territory.ground == self._ground(configuration):
                return False
            self._roster = await self._build(configuration)
            return before is not None

    def node(self, name: str) -> Object | None:
        """The Node of that name."""
        return self._context.store(NODE).get(None, name)

    def _ground(self, configuration: MeshConfiguration) -> Ground:
        services: tuple[Network, ...] = configuration.service_cidrs
        if not services:
            services = tuple(service_cidrs(self._context.store(SERVICE_CIDR).list()))
        pods: tuple[Network, ...] = configuration.pod_cidrs
        if not pods:
            of_nodes = (cidr for node in self._context.store(NODE).list() for cidr in node_cidrs(node))
            pods = pod_networks(of_nodes, (*configuration.blocks, *services))
        return Ground(configuration.blocks, pods, services)

    async def _build(self, configuration: MeshConfiguration) -> Roster:
        keyed = await self._keys.devices() if configuration.keys == "controller" else frozenset()
        before = self._roster
        blocks = (configuration.ipv4_block, configuration.ipv6_block)
        # Passes under way may have addresses that no status tells yet: they stay theirs.
        kept = before.allocations if before is not None and before.allocations.blocks == blocks else None
        roster = Roster(configuration, self._ground(configuration), kept)
        objects = self._context.store(EDGE_DEVICE, namespace=self._context.settings.namespace).list()
        devices = [(found, found.device) for found in map(FoundDevice.read, objects) if found.device is not None]
        # The oldest first, so that nobody loses to one that comes later what others have been told already.
        for found, device in sorted(devices, key=lambda each: Seniority.of(each[1].meta)):
            self._enter(roster, found, device, keyed)
        return roster

    def _enter(self, roster: Roster, found: FoundDevice, device: EdgeDevice, keyed: Collection[str]) -> None:
        """Let a device be in the roster as its status tells; all older ones are in it."""
        role = found.status.get("role")
        if not role or found.deleting or not device.enabled:
            return
        member = base_member(device, role, roster.configuration)
        roster.allocations.hold(found.name, member.seniority, found.claimed)
        node = self.node(found.status.get("node") or "")
        wanted = Wanted(found.name, member.seniority, pod_cidrs(device, role, node), device.mesh.extra_cidrs)
        granted = roster.territory.claim(wanted)
        addresses, key = roster.allocations.held(found.name), str(found.status.get("publicKey") or "")
        if not addresses.all or roster.with_key(key) is not None:
            return
        entered = replace(
            member,
            addresses=addresses,
            public_key=key,
            pod_cidrs=granted.pod_cidrs,
            extra_cidrs=granted.extra_cidrs,
            heard_at=str(found.status.get("endpoint") or ""),
            own_addresses=tuple(address.ip for address in found.told_addresses),
            # Without a key of ours it can only be one that made its own.
            extended=found.name not in keyed,
            connected=self._hosts.agent(found.name) is not None,
        )
        roster.put(entered)
