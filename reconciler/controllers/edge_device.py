"""The controller of EdgeDevices: makes them for new agents, and has hosts and gateways form the mesh (docs/mesh.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.errors import Conflict, EdgefarmError, KubernetesUnavailable
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers import mesh_status
from reconciler.controllers.changes import worth_a_look
from reconciler.controllers.finalizers import add_finalizer, has_finalizer, remove_finalizer
from reconciler.controllers.mesh_devices import FoundDevice, node_cidrs
from reconciler.controllers.mesh_hosts import MeshHosts
from reconciler.controllers.mesh_keys import MeshKeys
from reconciler.controllers.mesh_pass import MeshPass, Subject
from reconciler.controllers.mesh_state import MeshState
from reconciler.controllers.mesh_status import DeviceStatus, Identity
from reconciler.desired.mesh import conditions
from reconciler.ports import EDGE_DEVICE, NODE, SERVICE_CIDR, ConnectedAgent, Object
from reconciler.status import find_condition

#: How long after a change of leader an agent is not missed that was connected: it registers within a heartbeat.
_PATIENCE: Final = timedelta(seconds=60)
_NODE_SOON: Final = timedelta(seconds=1)
#: Passes at the same time. Nearly all that a pass does is to wait for its host: one that hangs is waited for some 35 s.
_WORKERS: Final = 256


class EdgeDeviceController:
    """One pass over one device; the key without a name stands for what all of them rest on."""

    name = "edge-device"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._namespace = context.settings.namespace
        self._hosts = MeshHosts(context)
        self._keys = MeshKeys(context.vault)
        self._state = MeshState(context, self._hosts, self._keys)
        self._pass = MeshPass(context, self._hosts, self._keys, self._wake)
        self._status = DeviceStatus(context)
        #: When the first pass began: before, another replica was leading.
        self._began: datetime | None = None
        #: Sessions of agents that have seen their device's end: these do not make it again.
        self._ended: dict[str, str] = {}

    def watches(self) -> list[Watch]:
        """What wakes this controller."""
        return [
            Watch(EDGE_DEVICE, self._map_device, namespace=self._namespace),
            Watch(NODE, self._map_node),
            Watch(SERVICE_CIDR, self._map_service_cidr, needed=self._has_mesh),
        ]

    @property
    def ground_key(self) -> Key:
        """The key for what all devices rest on."""
        return Key(self.name, self._namespace, "")

    async def reconcile(self, key: Key) -> Result:
        """One pass."""
        self._began = self._began or self._context.clock()
        configuration = self._context.configuration()
        if configuration is None:
            return Result()
        if not key.name:
            if configuration.mesh.enabled and await self._state.refresh(configuration.mesh):
                self._wake(obj["metadata"]["name"] for obj in self._objects())
            return Result()
        obj = self._context.store(EDGE_DEVICE, namespace=self._namespace).get(self._namespace, key.name)
        if obj is None:
            return await self._absent(key.name, configuration)
        found = FoundDevice.read(obj)
        try:
            return await self._present(found, configuration)
        except EdgefarmError as error:
            await self._report(error, found)
            raise

    # -- what becomes of a device ------------------------------------------------------------------------------------

    async def _absent(self, name: str, configuration: Configuration) -> Result:
        agent = self._hosts.agent(name)
        if not configuration.mesh.enabled:
            return Result()
        roster = await self._state.roster(configuration.mesh)
        if roster.get(name) is not None:
            # Somebody has taken the finalizer off.
            if agent is not None:
                self._ended[name] = agent.session
            await self._pass.leave(name, roster, dismiss=True)
            if configuration.mesh.keys == "controller":
                await self._keys.delete(name)
        self._hosts.forget(name)
        if agent is None:
            self._ended.pop(name, None)
        if agent is None or not agent.new or self._ended.get(name) == agent.session:
            return Result()
        node = self._state.node(agent.node)
        if node is None:
            return Result(_NODE_SOON)
        try:
            await self._context.kube.create(EDGE_DEVICE, _new_device(agent, node, self._namespace))
        except Conflict:
            return Result()  # it exists, and the informer has not told yet
        self._ended.pop(name, None)
        return Result()

    async def _present(self, found: FoundDevice, configuration: Configuration) -> Result:
        if found.deleting:
            await self._end(found, configuration)
            return Result()
        if not configuration.mesh.enabled:
            await self._status.write_conditions(found, mesh_status.mesh_disabled())
            return Result()
        agent = self._hosts.agent(found.name)
        identity = _identity(found, agent)
        if found.device is None:
            await self._status.write_conditions(found, mesh_status.invalid(found.problem))
            return Result()
        if identity is None:
            known = [conditions.agent_connected(connected=False)]
            known.append(conditions.ready(known))
            await self._status.write_outside(found, None, known, connected=False)
            return Result()
        if agent is None and self._may_come_back(found):
            return Result(_PATIENCE)
        found = FoundDevice.read(await add_finalizer(self._context.kube, EDGE_DEVICE, found.obj))
        if found.device is None:
            raise Conflict(f"EdgeDevice {found.name} has changed")
        subject = Subject(found, found.device, identity, self._state.node(identity.node))
        roster = await self._state.roster(configuration.mesh)
        if not found.device.enabled:
            await self._pass.keep_out(subject, conditions.disabled(), roster)
            return Result(configuration.mesh.observe_every)
        return Result(await self._pass.bring_about(subject, roster))

    async def _end(self, found: FoundDevice, configuration: Configuration) -> None:
        """Let a device go. A host or gateway that cannot be reached now is told everything when it returns."""
        if not has_finalizer(found.obj):
            return
        agent = self._hosts.agent(found.name)
        if agent is not None:
            self._ended[found.name] = agent.session
        if configuration.mesh.enabled:
            roster = await self._state.roster(configuration.mesh)
            key = str(found.status.get("publicKey") or "")
            await self._pass.leave(found.name, roster, dismiss=True, public_key=key)
        if configuration.mesh.keys == "controller":
            await self._keys.delete(found.name)
        await remove_finalizer(self._context.kube, EDGE_DEVICE, found.obj)

    def _may_come_back(self, found: FoundDevice) -> bool:
        recently = self._began is None or self._context.clock() - self._began < _PATIENCE
        return recently and found.status.get("agentConnected") is True

    async def _report(self, error: EdgefarmError, found: FoundDevice) -> None:
        if isinstance(error, Conflict | KubernetesUnavailable):
            return
        try:
            await self._status.write_conditions(found, mesh_status.failed(error))
        except EdgefarmError as second:
            # The first error is the one that matters; it is raised and retried.
            self._context.log.warning("a failure could not be reported in the status", reason=str(second))

    # -- what wakes it -----------------------------------------------------------------------------------------------

    def map_agents(self, devices: Sequence[str]) -> Iterable[Key]:
        """The devices whose agents came, went, or offer something else."""
        return map(self._key, devices)

    def _map_device(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        obj = new or old
        if obj is not None and worth_a_look(old, new):
            yield self._key(obj["metadata"]["name"])
        if _told_to_all(old) != _told_to_all(new):
            yield from self._all()

    def _map_node(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        node = new or old
        if node is None or (old is not None and new is not None and node_cidrs(old) == node_cidrs(new)):
            return
        for role in names.AGENT_SERVICE_ACCOUNTS:
            yield self._key(names.edge_device(role, node["metadata"]["name"]))
        configuration = self._context.configuration()
        if configuration is not None and not configuration.mesh.pod_cidrs:
            yield self.ground_key

    def _map_service_cidr(self, _old: Object | None, _new: Object | None) -> Iterable[Key]:
        yield self.ground_key

    def _has_mesh(self) -> bool:
        configuration = self._context.configuration()
        return configuration is not None and configuration.mesh.enabled

    def _all(self) -> Iterable[Key]:
        return [self._key(obj["metadata"]["name"]) for obj in self._objects()]

    def _objects(self) -> Sequence[Object]:
        return self._context.store(EDGE_DEVICE, namespace=self._namespace).list()

    def _wake(self, devices: Iterable[str]) -> None:
        for device in devices:
            self._context.wake(self._key(device))

    def _key(self, device: str) -> Key:
        return Key(self.name, self._namespace, device)


def _identity(found: FoundDevice, agent: ConnectedAgent | None) -> Identity | None:
    """Whose device it is; None while no agent has ever spoken for it."""
    if agent is not None:
        return Identity(agent.role, agent.node)
    role, node = found.status.get("role"), found.status.get("node")
    return Identity(str(role), str(node)) if role and node else None


def _told_to_all(obj: Object | None) -> Any:
    """What every edge host must be told about a device, as far as its object tells: where a gateway is, and networks
    that lie behind a host."""
    if obj is None:
        return None
    status, mesh = obj.get("status") or {}, ((obj.get("spec") or {}).get("network") or {}).get("mesh") or {}
    ending = "deletionTimestamp" in obj["metadata"]
    extra = mesh.get("extraAllowedCIDRs")
    if status.get("role") == names.ROLE_GATEWAY:
        place = mesh.get("endpoint") or status.get("addresses")
        return status.get("publicKey"), status.get("mesh"), mesh.get("port"), place, extra, ending
    if not extra:
        return None
    accepted = find_condition(obj, conditions.ACCEPTED) or {}
    return extra, accepted.get("observedGeneration"), ending


def _new_device(agent: ConnectedAgent, node: Object, namespace: str) -> Object:
    """The device of an agent. It goes with its Node."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": agent.node, "uid": node["metadata"]["uid"]}
    return {
        "apiVersion": EDGE_DEVICE.api_version,
        "kind": EDGE_DEVICE.kind,
        "metadata": {
            "name": agent.device,
            "namespace": namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_TYPE: agent.role},
            "ownerReferences": [owner],
            "finalizers": [names.FINALIZER],
        },
        "spec": {},
    }


def build(context: Context) -> Registration:
    """The controller, its watches, and the agents that wake it."""
    controller = EdgeDeviceController(context)
    return Registration(
        controller,
        controller.watches(),
        always=(controller.ground_key,),
        agents=controller.map_agents,
        workers=_WORKERS,
    )
