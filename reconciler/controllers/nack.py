"""Tidies up what was made for NACK and is needed no more, and wakes Streams when NACK has said something."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from edgefarm import names
from reconciler.concurrency import all_of
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.controllers.nack_accounts import NackAccounts
from reconciler.controllers.nack_streams import NackStreams
from reconciler.controllers.stream_leafs import LeafPods, leaf_domains
from reconciler.desired import nack
from reconciler.desired.resources import FoundNetwork
from reconciler.desired.streams import leaf_places
from reconciler.ports import NACK_ACCOUNT, SECRET_PRESENCE, STREAM, Object

#: The controller that looks after Streams.
_STREAMS: Final = "stream"


class NackController:
    """One pass tidies up for one network, whether that still exists or not.

    Under another driver NACK lets all streams be; the other driver finds them as its own. The same when the network
    goes, and for domains whose node has left for good: NACK would try to reach them for ever.
    """

    name = "nack"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._leafs = LeafPods(context)
        self._streams = NackStreams(context)
        self._accounts = NackAccounts(context)

    def watches(self) -> list[Watch]:
        """What wakes this controller, and that of Streams."""
        login = Watch(SECRET_PRESENCE, self._map_login, namespace=self._directory.namespace, labels=nack.SELECTOR)
        return [
            self._streams.watch(self._map_nack_stream, self._is_needed),
            login,
            replace(login, kind=NACK_ACCOUNT, needed=self._is_needed),
            self._directory.watch_networks(self._map_network),
            self._directory.watch_streams(lambda *_: ()),
            self._directory.watch_edge_networks(self._map_edge_network),
            self._leafs.watch(self._map_pod),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one network."""
        configuration, network = self._context.configuration(), self._directory.network(key.name)
        if configuration is None or self._streams.problem:
            return Result()
        objects = self._streams.of_network(key.name)
        stays = network is not None and not FoundNetwork.read(network).deleting
        if stays and configuration.streams.driver == "nack":
            await self._tidy(key.name, objects)
            return Result()
        await all_of([self._streams.release(obj) for obj in objects])
        if not objects and self._has_login(key.name):
            await self._accounts.delete(key.name)
        return Result()

    async def _tidy(self, network: str, objects: Iterable[Object]) -> None:
        pods, edges = self._leafs.of(network), self._directory.edge_networks_of(network)
        domains = {names.MAIN_DOMAIN, *(place.domain for place in leaf_places(network, pods, edges))}
        for obj in objects:
            if nack.domain_of(obj) not in domains:
                await self._streams.release(obj)
            elif not await self._is_owned(obj):
                await self._streams.delete(obj)

    async def _is_owned(self, obj: Object) -> bool:
        """Whether its Stream is still there. What the informer does not know is asked for: data is at stake."""
        owner = nack.owner_of(obj)
        if owner is None:
            return False
        known = self._directory.stream(owner.namespace, owner.name)
        if known is not None and known["metadata"]["uid"] == owner.uid:
            return True
        found = await self._context.kube.get(STREAM, owner.namespace, owner.name)
        return found is not None and found["metadata"]["uid"] == owner.uid

    def _has_login(self, network: str) -> bool:
        namespace, name = self._directory.namespace, names.nack_account(network)
        stores = (self._context.store(kind, namespace=namespace) for kind in (NACK_ACCOUNT, SECRET_PRESENCE))
        return any(store.get(namespace, name) is not None for store in stores)

    def _is_needed(self) -> bool:
        """NACK's objects are followed while it is the driver, and after that until it has let go of every network."""
        configuration = self._context.configuration()
        if configuration is None:
            return False
        logins = self._context.store(SECRET_PRESENCE, namespace=self._directory.namespace).list()
        return configuration.streams.driver == "nack" or any(map(nack.is_login, logins))

    # -- what wakes whom ---------------------------------------------------------------------------------------------

    def _map_nack_stream(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        either = new or old
        network, owner = nack.network_of(either or {"metadata": {}}), nack.owner_of(either or {"metadata": {}})
        if owner is not None:
            yield Key(_STREAMS, owner.namespace, owner.name)
        if network is not None and worth_a_look(old, new):
            yield self._key(network)

    def _map_login(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        either = new or old
        network = nack.network_of(either) if either is not None else None
        if network is not None and worth_a_look(old, new):
            yield self._key(network)

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        either = new or old
        if either is not None and reaches_others(old, new):
            yield self._key(either["metadata"]["name"])

    def _map_edge_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if _nodes(old) != _nodes(new) or reaches_others(old, new):
            for edge in (old, new):
                network = ((edge or {}).get("spec") or {}).get("network")
                if isinstance(network, str):
                    yield self._key(network)

    def _map_pod(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        before, after = set(leaf_domains(old)), set(leaf_domains(new))
        for network in sorted({domain.network for domain in before ^ after}):
            yield self._key(network)

    def _key(self, network: str) -> Key:
        return Key(self.name, self._directory.namespace, network)


def _nodes(edge: Object | None) -> list[str]:
    return [entry["domain"] for entry in ((edge or {}).get("status") or {}).get("nodes") or ()]


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = NackController(context)
    return Registration(controller, controller.watches())
