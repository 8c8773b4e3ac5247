"""A mesh for tests: a real API server, the controller under the real manager, simulated hosts, and a clock of ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from edgefarm import names
from edgefarm.vault import Vault
from reconciler.adapters.kube import KubeClient
from reconciler.configuration import Configuration
from reconciler.context import Context, Key
from reconciler.controllers import edge_device
from reconciler.informers import Informers
from reconciler.manager import Manager
from reconciler.metrics import Metrics
from reconciler.ports import EDGE_DEVICE, NODE, Object
from reconciler.queue import WorkQueue
from reconciler.settings import read_settings
from tests.reconciler_mesh.hosts import Host, Hosts

_LOG: structlog.stdlib.BoundLogger = structlog.get_logger()
_START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_SOON = 0.5  # seconds: a retry after a conflict, say
_SLICE = 0.2  # what is due within so many seconds is done together


class _Timer:
    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self._when = when
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self._when


class Clock:
    """Time that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._timers: list[_Timer] = []

    def now(self) -> datetime:
        return _START + timedelta(seconds=self.seconds)

    def call_later(self, delay: float, action: Callable[[], None]) -> _Timer:
        timer = _Timer(self.seconds + delay, action)
        self._timers.append(timer)
        return timer

    def due_before(self, until: float) -> bool:
        """Let time pass to the next timers, unless they are later than `until`; whether there were any."""
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        first = min(map(_Timer.when, self._timers), default=until + 1)
        if first > until:
            return False
        self.seconds = max(self.seconds, min(first + _SLICE, until))
        due = sorted((timer for timer in self._timers if timer.when() <= self.seconds), key=_Timer.when)
        self._timers = [timer for timer in self._timers if timer.when() > self.seconds]
        for timer in due:
            timer.action()
        return True


class Events:
    """Remembers Events as (type, object, reason, message)."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, str]] = []

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append(("Normal", about["metadata"]["name"], reason, message))

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        self.seen.append(("Warning", about["metadata"]["name"], reason, message))


class AdminVault:
    """Vault with an administrator's token; counts nothing, the client does."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(function, self.vault, *args, **kwargs)


@dataclass
class Systems:
    """What a world is made of and outlives a reconciler."""

    kube: KubeClient
    namespace: str
    vault: AdminVault
    kubeconfig: str


class MeshWorld:
    """Hosts, their devices, and a reconciler that can be restarted."""

    def __init__(self, systems: Systems, configuration: Configuration, *, workers: int = 16) -> None:
        self.systems = systems
        self.configuration = configuration
        self.clock = Clock()
        self.hosts = Hosts(self.clock.now)
        self.events = Events()
        self._caught_up_at = -1
        self._workers = workers
        self._running: list[asyncio.Task[None]] = []

    # -- the reconciler ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to lead, with an empty memory."""
        self.metrics = Metrics()
        self.informers = Informers(self.systems.kube, log=_LOG)
        environ = {
            "EDGEFARM_NAMESPACE": self.systems.namespace,
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": self.systems.kubeconfig,
            "EDGEFARM_VAULT_TOKEN_FILE": "unused",
        }
        context = Context(
            kube=self.systems.kube,
            store=self.informers,
            configuration=lambda: self.configuration,
            vault=self.systems.vault,
            nats=_nothing,
            jetstream=_nothing,
            events=self.events,
            clock=self.clock.now,
            settings=read_settings(environ),
            log=_LOG,
            agents=lambda: self.hosts,
            wake=lambda key: self.queue.add(key),
        )
        self.queue: WorkQueue[Key] = WorkQueue(self.clock.call_later, lambda: 1.0)
        self.manager = Manager(
            self.informers, self.queue, resync=lambda: timedelta(days=1), metrics=self.metrics, log=_LOG
        )
        registration = edge_device.build(context)
        self.manager.register([registration])
        self.hosts.listener = self.manager.agents_changed
        self._caught_up_at = -1
        self._running = [asyncio.create_task(self.informers.run())]
        await self.informers.synced()
        self._running.append(asyncio.create_task(self.manager.run(self._workers)))

    async def stop(self) -> None:
        """End at once, wherever it is."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.hosts.listener = lambda _: None

    async def restart(self) -> None:
        """Another process takes over."""
        await self.stop()
        await self.start()

    async def settle(self, seconds: float = _SOON) -> None:
        """Let `seconds` pass, and return when all that is due by then was done."""
        until = self.clock.seconds + seconds
        while True:
            await self._idle()
            if not self.clock.due_before(until):
                break
        self.clock.seconds = until

    async def tick(self, seconds: float = 1.0) -> None:
        """Let `seconds` pass, and begin what is due then; for tests in which something hangs."""
        until = self.clock.seconds + seconds
        self.clock.due_before(until)
        self.clock.seconds = until
        await asyncio.sleep(0.01)

    async def _idle(self) -> None:
        async with asyncio.timeout(60):
            while True:
                if self.queue.idle and await self._caught_up() and self.queue.idle:
                    return
                await asyncio.sleep(0.002)

    async def _caught_up(self) -> bool:
        """Whether the informers have seen all that was written; the API server is only asked when something was."""
        writes = self.writes
        if self._caught_up_at == writes:
            return True
        for kind, namespace in ((EDGE_DEVICE, self.systems.namespace), (NODE, None)):
            actual, _ = await self.systems.kube.list(kind, namespace)
            seen = self.informers(kind).list()
            if sorted(map(_version, actual)) != sorted(map(_version, seen)):
                return False
        self._caught_up_at = writes
        return True

    @property
    def writes(self) -> int:
        """Requests to the API server that could have changed something."""
        return self.systems.kube.writes

    def configure(self, **mesh: Any) -> None:
        """Change members of the configuration's section `mesh`, as a new ConfigMap would."""
        self.configuration = replace(self.configuration, mesh=replace(self.configuration.mesh, **mesh))
        self.manager.enqueue_all()

    # -- nodes and hosts ---------------------------------------------------------------------------------------------

    async def make_node(self, name: str, *pod_cidrs: str) -> Object:
        """A Node, as the cluster has it."""
        spec = {"podCIDR": pod_cidrs[0], "podCIDRs": list(pod_cidrs)} if pod_cidrs else {}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": spec}
        return await self.systems.kube.create(NODE, body)

    async def join(self, name: str, role: str = names.ROLE_EDGE, *pod_cidrs: str, **options: Any) -> Host:
        """A new node with a host whose agent was started just now."""
        await self.make_node(name, *pod_cidrs)
        containers, copy_of = options.pop("containers", False), options.pop("copy_of", None)
        host = self.hosts.add(name, role, **options)
        host.containers, host.copy_of = containers, copy_of
        self.hosts.connect(host, new=True)
        return host

    # -- devices -----------------------------------------------------------------------------------------------------

    async def device(self, host: Host | str) -> Object:
        """The EdgeDevice as it is now."""
        obj = await self.find(host)
        assert obj is not None
        return obj

    async def find(self, host: Host | str) -> Object | None:
        return await self.systems.kube.get(EDGE_DEVICE, self.systems.namespace, _name(host))

    async def status(self, host: Host | str) -> dict[str, Any]:
        return (await self.device(host)).get("status") or {}

    async def condition(self, host: Host | str, type_: str = "Ready") -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty when it is absent."""
        for each in (await self.status(host)).get("conditions") or ():
            if each["type"] == type_:
                return each["status"], each["reason"], each["message"]
        return "", "", ""

    async def by_age(self, *hosts: Host) -> list[Host]:
        """The hosts, that of the oldest device first; of those made in one second the uid decides."""
        ages = {host.device: (await self.device(host))["metadata"] for host in hosts}
        return sorted(hosts, key=lambda host: (ages[host.device]["creationTimestamp"], ages[host.device]["uid"]))

    async def edit(self, host: Host | str, **patch: Any) -> None:
        """Merge `patch` into an EdgeDevice."""
        await self.systems.kube.patch(EDGE_DEVICE, self.systems.namespace, _name(host), patch)

    async def delete(self, host: Host | str) -> None:
        await self.systems.kube.delete(EDGE_DEVICE, self.systems.namespace, _name(host))

    async def all_devices(self) -> list[Object]:
        return (await self.systems.kube.list(EDGE_DEVICE, self.systems.namespace))[0]


def _name(host: Host | str) -> str:
    return host if isinstance(host, str) else host.device


def _version(obj: Mapping[str, Any]) -> tuple[str, str]:
    return obj["metadata"]["name"], obj["metadata"]["resourceVersion"]


def _nothing(*_: object) -> Any:
    raise AssertionError("the mesh needs no NATS of its own")


@contextlib.asynccontextmanager
async def running(world: MeshWorld) -> AsyncIterator[MeshWorld]:
    """The world with its reconciler; afterwards its nodes are gone."""
    await world.start()
    try:
        yield world
    finally:
        await world.stop()
        for node in (await world.systems.kube.list(NODE))[0]:
            await world.systems.kube.delete(NODE, None, node["metadata"]["name"])
