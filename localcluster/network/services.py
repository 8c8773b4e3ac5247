"""Serves the cluster IPs of Services: a small kube-proxy in user space."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

import structlog

from localcluster.client import Json
from localcluster.informer import Informer
from localcluster.network.forward import Address, Listener, Locate, Route
from localcluster.workloads.endpoints import slice_of

_log = structlog.get_logger()


@dataclass(frozen=True)
class Endpoint:
    """Where a ready pod listens, and the node on which it runs."""

    address: Address
    node: str


@dataclass(frozen=True)
class ServicePort:
    """What stands behind one port of a Service; `local`: clients reach the endpoints of their own node only."""

    endpoints: tuple[Endpoint, ...]
    local: bool

    def reachable_from(self, node: str | None) -> list[Endpoint]:
        """The endpoints for a client on this node; None is a client that is no pod."""
        return [endpoint for endpoint in self.endpoints if not self.local or endpoint.node == node]


def served(services: Iterable[Json], pods: Iterable[Json]) -> dict[Address, ServicePort]:
    """Every TCP port of every Service with an address in 127/8 and at least one ready endpoint.

    Made of pods rather than of EndpointSlices: a real API server refuses loopback addresses in these.
    """
    by_namespace: defaultdict[str, list[Json]] = defaultdict(list)
    for pod in pods:
        by_namespace[pod["metadata"]["namespace"]].append(pod)
    found = {}
    for service in services:
        if not is_served(service):
            continue
        spec = service["spec"]
        slice_ = slice_of(service, by_namespace[service["metadata"]["namespace"]])
        for port, target in zip(spec.get("ports") or [], slice_["ports"], strict=True):
            endpoints = tuple(
                Endpoint((entry["addresses"][0], target["port"]), entry["nodeName"])
                for entry in slice_["endpoints"]
                if entry["conditions"]["ready"]
            )
            if endpoints and target["protocol"] == "TCP":
                local = spec.get("internalTrafficPolicy") == "Local"
                found[spec["clusterIP"], port["port"]] = ServicePort(endpoints, local)
    return found


def is_served(service: Json) -> bool:
    """Whether pods stand behind it and we can listen at its address, which lies elsewhere in a cluster of others."""
    spec = service["spec"]
    address = spec.get("clusterIP") or "None"
    return bool(spec.get("selector")) and address != "None" and ip_address(address).is_loopback


class ServiceProxy:
    """Listens at the address of every Service that has ready endpoints; nothing answers at the others."""

    def __init__(self, services: Informer, pods: Informer, locate: Locate) -> None:
        self._services = services
        self._pods = pods
        self._locate = locate
        self._served: Mapping[Address, ServicePort] = {}
        self._listeners: dict[Address, Listener] = {}
        self._turn = itertools.count()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Follow the informers until cancelled; then every connection is broken."""
        for informer in (self._services, self._pods):
            informer.listen(lambda _: self._moved.set())
        try:
            while True:
                await self._moved.wait()
                self._moved.clear()
                self._refresh()
        finally:
            for listener in self._listeners.values():
                listener.abort()

    def _refresh(self) -> None:
        self._served = served(self._services.items.values(), self._pods.items.values())
        for address in self._listeners.keys() - self._served.keys():
            # As with kube-proxy, connections that are open live as long as the pod at their other end.
            self._listeners.pop(address).close()
        for address in self._served.keys() - self._listeners.keys():
            try:
                self._listeners[address] = Listener.open(address, self._node_of, self._route_of(address))
            except OSError as error:
                _log.warning("service not served", address=f"{address[0]}:{address[1]}", error=str(error))

    def _node_of(self, client: Address, address: Address) -> str | None:
        """Looked up only where it matters: it takes a few milliseconds."""
        port = self._served.get(address)
        return self._locate(client, address) if port is not None and port.local else None

    def _route_of(self, address: Address) -> Route:
        def route(node: str | None) -> Address | None:
            port = self._served.get(address)
            endpoints = [] if port is None else port.reachable_from(node)
            return endpoints[next(self._turn) % len(endpoints)].address if endpoints else None

        return route
