"""The controller of Streams: their streams in JetStream, in the hub and on edge nodes, and their status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from edgefarm import names
from edgefarm.api.meta import Meta
from edgefarm.errors import Conflict, EdgefarmError, KubernetesUnavailable
from reconciler.configuration import Configuration
from reconciler.context import Context, Key, Registration, Result, Watch
from reconciler.controllers.changes import reaches_others, worth_a_look
from reconciler.controllers.directory import Directory
from reconciler.controllers.finalizers import add_finalizer, has_finalizer, remove_finalizer
from reconciler.controllers.nack_accounts import NackAccounts
from reconciler.controllers.nack_driver import NackDriver
from reconciler.controllers.stream_domains import StreamDomains
from reconciler.controllers.stream_leafs import COMING_SOON, LeafPods, is_ready, leaf_domains
from reconciler.desired import streams_status
from reconciler.desired.conditions import status_with
from reconciler.desired.resources import FoundEdgeNetwork, FoundNetwork, FoundStream
from reconciler.desired.streams import (
    Identity,
    Place,
    StreamPlan,
    Surroundings,
    leaf_places,
    plan_streams,
)
from reconciler.desired.streams_config import Owner
from reconciler.ports import STREAM, LeafOnHub, Object
from reconciler.status import Condition, write_status

#: How soon numbers are looked at again while they change; twice that when they did not, and so on.
_FRESH: Final = timedelta(seconds=30)
_STALE: Final = timedelta(minutes=2)


@dataclass(frozen=True)
class _Planned:
    """The plans of one network's Streams, good for as long as what they were made of stays the same."""

    made_of: object
    plans: Mapping[Identity, StreamPlan]


class StreamController:
    """One pass over one Stream: find its network, decide, bring JetStream to it, tell."""

    name = "stream"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._directory = Directory(context)
        self._leafs = LeafPods(context)
        self._nack_accounts = NackAccounts(context)
        self._planned: dict[str, _Planned] = {}
        self._paces: dict[Key, timedelta] = {}

    def watches(self) -> list[Watch]:
        """What wakes this controller."""
        return [
            self._directory.watch_streams(self._map_stream),
            self._directory.watch_networks(self._map_network),
            self._directory.watch_edge_networks(self._map_edge_network),
            self._leafs.watch(self._map_pod),
        ]

    async def reconcile(self, key: Key) -> Result:
        """One pass over one Stream."""
        obj = self._directory.stream(key.namespace, key.name)
        configuration = self._context.configuration()
        if obj is None:
            self._paces.pop(key, None)
            return Result()
        if configuration is None:
            await self._write(obj, streams_status.conditions_waiting())
            return Result()
        found = FoundStream.read(obj)
        try:
            if found.deleting:
                await self._delete(obj, found, configuration)
                return Result()
            soon = await self._bring_about(obj, found, configuration)
        except EdgefarmError as error:
            await self._report_failure(error, obj, deleting=found.deleting)
            raise
        pace = soon or (min(self._paces[key] * 2, _STALE) if key in self._paces else _FRESH)
        self._paces[key] = pace
        return Result(min(pace, configuration.resync))

    async def _bring_about(self, obj: Object, found: FoundStream, configuration: Configuration) -> timedelta | None:
        """When to look again; None when nothing is going on."""
        status = obj.get("status") or {}
        verdict = self._directory.stream_verdict(found)
        exists = bool(status.get("name"))
        if verdict.network is None or found.stream is None:
            await self._write(obj, streams_status.conditions_outside(verdict, exists=exists))
            return None
        # Planned before, perhaps, with another finalizer or status; what matters to the plan is the same.
        plan = replace(self._plan(verdict.network, found), stream=found.stream)
        refusal = streams_status.moved(self._still_valid(status), found.stream, verdict.network) or plan.refusal
        if refusal is not None:
            facts = self._without_gone(verdict.network, status)
            await self._write(obj, streams_status.conditions_refused(refusal, exists=exists), facts)
            return None
        obj = await add_finalizer(self._context.kube, STREAM, obj)
        domains = self._domains(verdict.network, configuration)
        left = self._left(verdict.network, plan, status)
        settled = await domains.converge(plan, left, configuration.streams.replicas)
        facts = streams_status.facts(verdict.network, found.stream, settled, self._still_valid(status))
        written = await self._write(obj, streams_status.conditions_settled(settled), facts)
        away = [each.place.domain for each in settled if each.state == "Unreachable"]
        if any(map(self._leafs.is_connected, away)):
            return COMING_SOON
        return _FRESH if written else None

    def _domains(self, network: str, configuration: Configuration) -> StreamDomains:
        """The network's streams, in the hands of the configured driver."""
        obj, jetstream = self._directory.network(network), self._context.jetstream(network)
        driver = None
        if obj is not None and configuration.streams.driver == "nack":
            driver = NackDriver(self._context, obj, configuration, self._nack_accounts)
        return StreamDomains(jetstream, self._context.clock, driver)

    def _plan(self, network: str, found: FoundStream) -> StreamPlan:
        """What becomes of a Stream among the others of its network."""
        obj = self._directory.network(network)
        belonging = self._directory.streams_of(network)
        edges = {edge["metadata"]["name"]: edge for edge in self._directory.edge_networks_of(network)}
        for _, other in belonging:
            named = other.stream.edge_network if other.stream else None
            foreign = self._directory.edge_network(named) if named and named not in edges else None
            if foreign is not None:
                edges[foreign["metadata"]["name"]] = foreign
        leafs = tuple(self._places(network))
        versions = [_version(each) for each in (obj, *edges.values(), *(stream for stream, _ in belonging))]
        planned = self._planned.get(network)
        if planned is None or planned.made_of != (versions, leafs):
            parsed = FoundNetwork.read(obj).network if obj is not None else None
            if parsed is None:
                raise Conflict(f"the network {network} changed meanwhile")
            around = Surroundings(
                network=parsed,
                streams=tuple(other.stream for _, other in belonging if other.stream is not None),
                edges={name: FoundEdgeNetwork.read(edge) for name, edge in edges.items()},
                leafs=leafs,
            )
            planned = self._planned[network] = _Planned((versions, leafs), plan_streams(around))
        return planned.plans[found.namespace, found.name]

    def _places(self, network: str) -> list[Place]:
        return leaf_places(network, self._leafs.of(network), self._directory.edge_networks_of(network))

    def _left(self, network: str, plan: StreamPlan, status: Mapping[str, Any]) -> list[Place]:
        """Domains that still exist, and in which the stream was seen, but is no longer wanted."""
        wanted = {place.domain for place in plan.places}
        seen = {entry["domain"] for entry in status.get("locations") or ()}
        return [place for place in self._places(network) if place.domain in seen - wanted]

    def _without_gone(self, network: str, status: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The status without the domains that are no more; None when there are none of these."""
        there = {names.MAIN_DOMAIN, *(place.domain for place in self._places(network))}
        locations = status.get("locations") or []
        kept = [entry for entry in locations if entry["domain"] in there]
        if len(kept) == len(locations):
            return None
        return {**{name: value for name, value in status.items() if name != "conditions"}, "locations": kept}

    def _still_valid(self, status: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status, unless it speaks of a network that is gone with all its streams."""
        network = status.get("network")
        return status if network and self._directory.network(network) is not None else {}

    # -- deletion ----------------------------------------------------------------------------------------------------

    async def _delete(self, obj: Object, found: FoundStream, configuration: Configuration) -> None:
        """Remove the streams that can be reached; the others are swept when they return (see stream_sweep)."""
        if not has_finalizer(obj):
            return
        status = obj.get("status") or {}
        network = status.get("network") or self._directory.stream_verdict(found).network
        name = status.get("name") or (found.stream.name if found.stream else None)
        if network and name and self._directory.network(network) is not None:
            seen = {entry["domain"] for entry in status.get("locations") or ()}
            everywhere = {names.MAIN_DOMAIN, *seen, *(place.domain for place in self._places(network))}
            domains = self._domains(network, configuration)
            await domains.remove(Owner.of(Meta.parse(obj)), name, sorted(everywhere))
        await remove_finalizer(self._context.kube, STREAM, obj)

    # -- status ------------------------------------------------------------------------------------------------------

    async def _write(self, obj: Object, wanted: list[Condition], facts: Mapping[str, Any] | None = None) -> bool:
        status = status_with(obj, wanted, self._context.clock(), facts)
        return await write_status(self._context.kube, STREAM, obj, status)

    async def _report_failure(self, error: EdgefarmError, obj: Object, *, deleting: bool) -> None:
        if isinstance(error, Conflict | KubernetesUnavailable):
            return
        say = streams_status.conditions_deleting if deleting else streams_status.conditions_failed
        try:
            await self._write(obj, say(error))
        except EdgefarmError as second:
            # The first error is the one that matters; it is raised and retried.
            self._context.log.warning("the status cannot be written", reason=str(second))

    # -- what wakes whom ---------------------------------------------------------------------------------------------

    def map_leafs(self, leafs: Sequence[LeafOnHub]) -> Iterable[Key]:
        """Streams on the nodes whose leafs have come or gone."""
        for network in sorted({domain.network for domain in self._leafs.came_or_went(leafs)}):
            yield from self._streams_in(network, at_edge_only=True)

    def _map_stream(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is not None and worth_a_look(old, new):
            yield self._key(new)
        if reaches_others(old, new):
            for stream in (old, new):
                for network in self._directory.networks_around_stream(stream) if stream is not None else ():
                    yield from self._streams_in(network)

    def _map_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if new is None and old is not None:
            self._planned.pop(old["metadata"]["name"], None)
        if reaches_others(old, new) or _account(old) != _account(new):
            for network in (old, new):
                if network is not None:
                    yield from map(self._key, self._directory.streams_around(network))

    def _map_edge_network(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        if reaches_others(old, new) or _nodes(old) != _nodes(new):
            for edge in (old, new):
                network = FoundEdgeNetwork.read(edge).network if edge is not None else None
                if network:
                    yield from self._streams_in(network)

    def _map_pod(self, old: Object | None, new: Object | None) -> Iterable[Key]:
        before, after = set(leaf_domains(old)), set(leaf_domains(new))
        if before != after or is_ready(old) != is_ready(new):
            for network in sorted({domain.network for domain in before | after}):
                yield from self._streams_in(network, at_edge_only=before == after)

    def _streams_in(self, network: str, *, at_edge_only: bool = False) -> Iterable[Key]:
        obj = self._directory.network(network)
        for stream in self._directory.streams_around(obj) if obj is not None else ():
            if not at_edge_only or (stream.get("spec") or {}).get("location") == "edge":
                yield self._key(stream)

    def _key(self, stream: Object) -> Key:
        return Key(self.name, stream["metadata"]["namespace"], stream["metadata"]["name"])


def _version(obj: Object | None) -> tuple[Any, ...]:
    """Differs when a spec differs, and with annotations, but not with every status."""
    metadata = (obj or {"metadata": {}})["metadata"]
    return (
        metadata.get("uid"),
        metadata.get("generation"),
        "deletionTimestamp" in metadata,
        metadata.get("annotations"),
    )


def _account(network: Object | None) -> Any:
    return ((network or {}).get("status") or {}).get("account")


def _nodes(edge: Object | None) -> list[str]:
    return [entry["domain"] for entry in ((edge or {}).get("status") or {}).get("nodes") or ()]


def build(context: Context) -> Registration:
    """The controller and its watches."""
    controller = StreamController(context)
    return Registration(controller, controller.watches(), leafs=controller.map_leafs)
