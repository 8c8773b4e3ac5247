"""The controller that sweeps JetStream domains: streams of ours whose Stream objects are gone are deleted.

Most Streams are removed by their own controller. What remains was on a node that was away, or lost its finalizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgefarm import names
from edgefarm.errors import DomainUnreachable
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.directory import Directory
from reconciler.controllers.stream_domains import StreamDomains
from reconciler.controllers.stream_leafs import COMING_SOON, LeafDomain, LeafPods, is_ready, leaf_domains
from reconciler.desired.resources import FoundNetwork
from reconciler.desired.streams_config import Owner
from reconciler.ports import STREAM, LeafOnHub, Object


class StreamSweepController:
    """One pass sweeps one domain of one network; its key has the network's name where others have a namespace."""

    name = "stream-sweep"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._leafs = LeafPods(context)

    def watches(self) -> list[Watch]:
        """What wakes this controller; equal objects, as at a resync, do it, too."""
        return [
            self._directory.watch_networks(self._map_network),
            self._directory.watch_streams(lambda *_: ()),
            self._leafs.watch(self._map_pod),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one domain. One that is away is swept when it returns."""
        network, domain = key.namespace, key.name
        configuration, obj = self._context.configuration(), self._directory.network(network)
        if configuration is None:
            return Result()
        if obj is None or FoundNetwork.read(obj).deleting:
            return Result()
        domains = StreamDomains(self._context.jetstream(network), self._context.clock)
        try:
            for observed in await domains.listing(domain):
                if observed.owner is not None and not await self._exists(observed.owner):
                    await domains.delete(domain, observed.config["name"])
        except DomainUnreachable:
            return Result(COMING_SOON if self._leafs.is_connected(domain) else None)
        return Result()

    async def _exists(self, owner: Owner) -> bool:
        """Whether the owner is still there. What the informer does not know is asked for: data is at stake."""
        known = self._directory.stream(owner.namespace, owner.name)
        if known is not None and known["metadata"]["uid"] == owner.uid:
            return True
        found = await self._context.kube.get(STREAM, owner.namespace, owner.name)
        return found is not None and found["metadata"]["uid"] == owner.uid

    def map_leafs(self, leafs: Sequence[LeafOnHub]) -> Iterable[Key]:
        """Domains whose leafs have come or gone."""
        return map(self._key, self._leafs.came_or_went(leafs))

    def _map_pod(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is not None and (old is None or old is new or (is_ready(new) and not is_ready(old))):
            yield from map(self._key, leaf_domains(new))

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        """The hub's domain, at the start and at every resync, where there are Streams at all."""
        if new is not None and (old is None or old is new) and self._directory.streams_around(new):
            yield self._key(LeafDomain(new["metadata"]["name"], names.MAIN_DOMAIN))

    def _key(self, domain: LeafDomain) -> Key:
        return Key(self.name, domain.network, domain.domain)


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = StreamSweepController(context)
    return Registration(controller, controller.watches(), leafs=controller.map_leafs)
