"""The controller of EdgeNetworks: the workload of their leafs, and a status that says which of these the hub sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from edgefarm.api.meta import Meta
from edgefarm.errors import Conflict, EdgefarmError, KubernetesUnavailable
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.desired import edge_conditions, edge_network, leaf_workload
from reconciler.desired.comparison import is_as_desired
from reconciler.desired.conditions import READY
from reconciler.desired.edge_network import Assignment
from reconciler.desired.resources import FoundEdgeNetwork, FoundNetwork
from reconciler.ports import DAEMON_SET, EDGE_NETWORK, NODE, POD, SERVICE_ACCOUNT, Kind, LeafOnHub, Object
from reconciler.status import Condition, find_condition, set_conditions, write_status

_DRIFT: Final = "DriftMended"
_LEAFS: Final = f"{names.LABEL_TYPE}={names.TYPE_LEAF}"


class _NameTaken(Exception):
    """An object that is not ours has a name that we need."""

    def __init__(self, kind: Kind, name: str) -> None:
        self.condition = edge_conditions.name_taken(kind.kind, name)


@dataclass(frozen=True)
class _Root:
    """An EdgeNetwork: as an object, and as it was read."""

    obj: Object
    edge: EdgeNetwork


class EdgeNetworkController:
    """One pass: which nodes, the service account and the DaemonSet, status.

    What the Network gives its leafs (key, role, document, Service) is the business of the Network's controller.
    """

    name = "edge-network"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)

    def watches(self) -> list[Watch]:
        """What wakes this controller."""
        return [
            self._directory.watch_edge_networks(self._map_edge_network),
            self._directory.watch_networks(self._map_network),
            Watch(NODE, self._map_node),
            Watch(POD, self._map_pod, namespace=self._directory.namespace, labels=_LEAFS),
            Watch(DAEMON_SET, self._map_made, namespace=self._directory.namespace),
            Watch(SERVICE_ACCOUNT, self._map_made),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one EdgeNetwork. What was made for one that is gone goes with it, for that owns it."""
        obj = self._directory.edge_network(key.name)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return Result()
        found, configuration = FoundEdgeNetwork.read(obj), self._context.configuration()
        if configuration is None:
            await self._write(obj, [edge_conditions.waiting()])
        elif found.edge is None:
            await self._write(obj, [edge_conditions.invalid(found.problem)])
        else:
            try:
                await self._converge(_Root(obj, found.edge), configuration)
            except _NameTaken as taken:
                await self._write(obj, [taken.condition])
            except EdgefarmError as error:
                await self._report(error, obj)
                raise
        return Result()

    async def _converge(self, root: _Root, configuration: Configuration) -> None:
        network = self._directory.network(root.edge.network)
        if network is None:
            await self._remove(root)
            await self._write(root.obj, edge_conditions.network_missing(root.edge.network), edge_network.facts(()))
            return
        if not configuration.nats.leaf_urls:
            await self._write(root.obj, [edge_conditions.no_leaf_urls()])
            return
        found = FoundNetwork.read(network)
        assignment = self._assignment(root.edge)
        if found.deleting:
            wanted = edge_conditions.network_deleting(found.name)
        else:
            await self._ensure_account(root)
            await self._ensure_workload(root, assignment, configuration)
            wanted = []
        view = self._context.leafs()
        leafs = _of_account(view.leafs, (network.get("status") or {}).get("account")) if view.known else None
        states = edge_network.observe(found.name, assignment.nodes, leafs, root.obj.get("status") or {})
        connected = edge_conditions.nodes_connected(root.obj, states, view)
        wanted = wanted or edge_conditions.in_place(found, root.edge.limits, states, assignment, connected)
        await self._write(root.obj, wanted, edge_network.facts(states))

    def _assignment(self, edge: EdgeNetwork) -> Assignment:
        rivals = (FoundEdgeNetwork.read(each).edge for each in self._directory.edge_networks_of(edge.network))
        pods = self._context.store(POD, namespace=self._directory.namespace, labels=_LEAFS).list()
        places = {place for place in map(edge_network.place_of, pods) if place is not None}
        nodes = self._context.store(NODE).list()
        return edge_network.assign(edge, [rival for rival in rivals if rival is not None], nodes, places)

    # -- what is made ------------------------------------------------------------------------------------------------

    async def _ensure_account(self, root: _Root) -> None:
        desired = leaf_workload.service_account(root.edge)
        present = self._present(SERVICE_ACCOUNT, root)
        if present is None:
            await self._context.kube.create(SERVICE_ACCOUNT, desired)
        elif not is_as_desired(present, desired):
            # It may hold more, such as secrets for pulling images.
            patch = {**desired, "metadata": {**desired["metadata"], "resourceVersion": _version(present)}}
            await self._context.kube.patch(
                SERVICE_ACCOUNT, self._directory.namespace, present["metadata"]["name"], patch
            )

    async def _ensure_workload(self, root: _Root, assignment: Assignment, configuration: Configuration) -> None:
        desired = leaf_workload.daemon_set(root.edge, assignment.conflicts, configuration)
        digest = hashlib.sha256(json.dumps(desired, sort_keys=True).encode()).hexdigest()[:16]
        desired["metadata"]["annotations"] = {names.ANNOTATION_DESIRED: digest}
        present = self._present(DAEMON_SET, root)
        if present is None:
            await self._context.kube.create(DAEMON_SET, desired)
            if _is_current(root.obj):
                self._mended(root, "was missing")
        elif not is_as_desired(present, desired):
            changed = (present["metadata"].get("annotations") or {}).get(names.ANNOTATION_DESIRED) == digest
            desired["metadata"] = _merged(present["metadata"], desired["metadata"])
            await self._context.kube.replace(DAEMON_SET, desired)
            if changed:
                self._mended(root, "was changed")

    def _mended(self, root: _Root, what: str) -> None:
        workload = names.leaf_workload(root.edge.name)
        self._context.events.warning(root.obj, _DRIFT, f"DaemonSet {workload} {what}: put back")

    async def _remove(self, root: _Root) -> None:
        """Remove what was made, for leafs of a network that does not exist can do nothing."""
        for kind in (DAEMON_SET, SERVICE_ACCOUNT):
            present = self._store_get(kind, root)
            if present is not None and _is_made_for(present, root.obj):
                metadata = present["metadata"]
                await self._context.kube.delete(kind, metadata["namespace"], metadata["name"], uid=metadata["uid"])

    def _present(self, kind: Kind, root: _Root) -> Object | None:
        """Our object of this kind, if it exists; raises _NameTaken when somebody else's does."""
        present = self._store_get(kind, root)
        if present is not None and not _is_made_for(present, root.obj):
            raise _NameTaken(kind, present["metadata"]["name"])
        return present

    def _store_get(self, kind: Kind, root: _Root) -> Object | None:
        return self._context.store(kind).get(self._directory.namespace, names.leaf_workload(root.edge.name))

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write(self, obj: Object, wanted: Sequence[Condition], facts: Object | None = None) -> None:
        """Write the status. Without `facts` those observed earlier stay, and so do conditions not spoken of."""
        before = obj.get("status") or {}
        conditions = set_conditions(obj, wanted, now=self._context.clock())
        if facts is None:
            status = {**before, "conditions": conditions}
        else:
            spoken = {condition.type for condition in wanted}
            status = {**facts, "conditions": [each for each in conditions if each["type"] in spoken]}
        await write_status(self._context.kube, EDGE_NETWORK, obj, status)

    async def _report(self, error: EdgefarmError, obj: Object) -> None:
        if isinstance(error, Conflict | KubernetesUnavailable):
            return
        try:
            await self._write(obj, [edge_conditions.failure(error)])
        except EdgefarmError as second:
            # The first error is the one that matters; it is raised and retried.
            self._context.log.warning("a failure could not be reported in the status", reason=str(second))

    # -- what wakes it -----------------------------------------------------------------------------------------------

    def map_leafs(self, leafs: Sequence[LeafOnHub]) -> Iterable[Key]:
        """The EdgeNetworks of the networks whose leafs have come or gone."""
        if not leafs or not self._context.leafs().known:
            yield from self._all()
            return
        accounts = {leaf.account for leaf in leafs}
        for obj in self._edge_networks():
            network = self._directory.network(FoundEdgeNetwork.read(obj).network or "")
            if network is not None and (network.get("status") or {}).get("account") in accounts:
                yield self._key(obj)

    def _map_edge_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is not None and worth_a_look(old, new):
            yield self._key(new)
        if reaches_others(old, new):
            for obj in (old, new):
                network = FoundEdgeNetwork.read(obj).network if obj is not None else None
                yield from map(self._key, self._directory.edge_networks_of(network) if network else ())

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        network = new or old
        if network is not None and (worth_a_look(old, new) or _account(old) != _account(new)):
            yield from map(self._key, self._directory.edge_networks_of(network["metadata"]["name"]))

    def _map_node(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if edge_network.decides_about_leafs(old, new):
            yield from self._all()

    def _map_pod(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """A leaf that has come to a node, or left it."""
        before, after = edge_network.place_of(old), edge_network.place_of(new)
        if before != after:
            for edge in sorted({place[0] for place in (before, after) if place is not None}):
                yield Key(self.name, self._directory.namespace, edge)

    def _map_made(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """An object that we made, or that has the name of one."""
        obj = new or old
        if obj is None or obj["metadata"]["namespace"] != self._directory.namespace or not worth_a_look(old, new):
            return
        name, owner = obj["metadata"]["name"], Meta.parse(obj).owner
        for each in self._edge_networks():
            if each["metadata"]["uid"] == owner or names.leaf_workload(each["metadata"]["name"]) == name:
                yield self._key(each)

    def _all(self) -> Iterable[Key]:
        return map(self._key, self._edge_networks())

    def _edge_networks(self) -> Iterable[Object]:
        return self._context.store(EDGE_NETWORK, namespace=self._directory.namespace).list()

    def _key(self, obj: Object) -> Key:
        return Key(self.name, self._directory.namespace, obj["metadata"]["name"])


def _of_account(leafs: Sequence[LeafOnHub], account: str | None) -> list[LeafOnHub]:
    return [leaf for leaf in leafs if leaf.account == account]


def _account(network: Object | None) -> Any:
    return ((network or {}).get("status") or {}).get("account")


def _is_made_for(obj: Object, owner: Object) -> bool:
    return bool(Meta.parse(obj).owner == owner["metadata"]["uid"])


def _is_current(obj: Object) -> bool:
    """Whether the object is Ready, as it is now."""
    ready = find_condition(obj, READY)
    generation = obj["metadata"].get("generation")
    return ready is not None and (ready["status"], ready.get("observedGeneration")) == ("True", generation)


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def _merged(present: Object, desired: Object) -> Object:
    """The desired metadata, with labels and annotations that others have added."""
    members = {
        member: {**(present.get(member) or {}), **(desired.get(member) or {})} for member in ("labels", "annotations")
    }
    return {**desired, **members, "resourceVersion": present["resourceVersion"]}


def build(context: Context) -> Registration:
    """The controller, its watches, and the leafs that wake it."""
    controller = EdgeNetworkController(context)
    return Registration(controller, controller.watches(), leafs=controller.map_leafs)
