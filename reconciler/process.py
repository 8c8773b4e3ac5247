"""The life of one reconciler process: informers at once, work while it leads, an orderly end."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from edgefarm import names
from edgefarm.errors import SettingsError
from edgefarm.pages import Page
from reconciler.adapters.kube import KubeClient
from reconciler.admission import Admission
from reconciler.agent_admission import Cluster
from reconciler.agent_service import AgentService
from reconciler.configuration_source import ConfigurationSource, configuration_source
from reconciler.connections import Connections
from reconciler.context import Context, Key, Registration
from reconciler.diagnostics.service import DiagnosticsPage
from reconciler.election import Candidate, LeaderElection, LeaseLostError
from reconciler.events import EventRecorder
from reconciler.health import HealthServer
from reconciler.informers import Informers
from reconciler.leaf_monitor import LeafMonitor
from reconciler.manager import Manager
from reconciler.metrics import CONTENT_TYPE, Metrics
from reconciler.queue import WorkQueue
from reconciler.settings import Settings

Builder = Callable[[Context], Registration]

_DRAIN_SECONDS: Final = 3.0
_DEFAULT_RESYNC: Final = timedelta(minutes=10)


class Process:
    """Everything that one replica consists of, wired together; `run` is its whole life."""

    def __init__(
        self, settings: Settings, kube: KubeClient, metrics: Metrics, *, log: structlog.stdlib.BoundLogger
    ) -> None:
        chance = random.SystemRandom().random
        self.settings = settings
        self._kube = kube
        self._metrics = metrics
        self._log = log
        self._informers = Informers(kube, log=log)
        self._events = EventRecorder(kube, settings.pod_name, clock=_now, log=log)
        self._admission = Admission(self._informers, settings.namespace)
        self._source = ConfigurationSource(metrics, log=log, namespace=settings.namespace, judge=self._admission)
        self._connections = Connections(settings.vault_token_file, clock=_now, metrics=metrics, log=log)
        self._leafs = LeafMonitor(self._connections.nats, self._has_leafs, log=log)
        self._connections.on_leafs(self._leafs.look_soon)
        self._agents = AgentService(
            Cluster(kube, kube, settings.namespace),
            self._connections.agents_user,
            lambda: self._source.current,
            clock=_now,
            metrics=metrics,
            log=log,
        )
        self._queue: WorkQueue[Key] = WorkQueue(asyncio.get_running_loop().call_later, chance)
        self._manager = Manager(self._informers, self._queue, resync=self._resync, metrics=metrics, log=log)
        identity = f"{settings.pod_name}_{secrets.token_hex(4)}"
        candidate = Candidate(settings.namespace, names.ELECTION_LEASE, identity, settings.election)
        self._election = LeaderElection(kube, candidate, clock=_now, chance=chance, log=log)
        self._health = HealthServer(
            {
                "/healthz": lambda: Page.text("ok"),
                "/readyz": self._ready,
                "/metrics": lambda: Page(metrics.render(), content_type=CONTENT_TYPE),
            }
        )
        metrics.observe(depth=lambda: self._queue.depth, leading=lambda: self._election.leading)

    async def run(self, builders: Sequence[Builder], stop: asyncio.Event) -> int:
        """Run until `stop` is set (exit status 0), or until the lease is lost (1: let the supervisor start us anew)."""
        self._register(builders)
        await self._listen()
        background = [asyncio.create_task(self._informers.run()), asyncio.create_task(self._events.run())]
        leading = asyncio.create_task(self._lead())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({*background, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await self._drain()
            return self._exit_status([leading, *background])
        finally:
            await _cancel(leading, stopping)
            # Only now that nothing works any more may somebody else begin.
            await self._election.release()
            await self._flush_events()
            await _cancel(*background)
            await self._health.close()
            await self._connections.close()

    def _register(self, builders: Sequence[Builder]) -> None:
        context = Context(
            kube=self._kube,
            store=self._informers,
            configuration=lambda: self._source.current,
            vault=self._connections,
            nats=self._connections.nats,
            jetstream=self._connections.jetstream,
            events=self._events,
            clock=_now,
            settings=self.settings,
            log=self._log,
            leafs=lambda: self._leafs.view,
            agents=lambda: self._agents.connected,
            wake=self._queue.add,
            servers=self._source,
        )
        # Before the controllers' own handlers, so that they find the new configuration in force.
        self._source.hold()
        self._informers.informer(configuration_source(self.settings.namespace)).add_handler(self._source.changed)
        self._admission.on_change(self._look_at_configuration)
        self._source.on_applied(lambda _: self._informers.reconsider())
        self._source.on_applied(self._connections.apply)
        self._source.on_applied(lambda _: self._agents.configuration_changed())
        self._source.on_applied(lambda _: self._manager.enqueue_all())
        self._source.on_accepted(self._manager.enqueue_all)
        self._manager.register([build(context) for build in builders])
        self._leafs.add_handler(self._manager.leafs_changed)
        self._agents.add_handler(self._manager.agents_changed)
        page = DiagnosticsPage(context, lambda: self._election.leading, self._log)
        self._health.add_answerer("/diagnostics", page.answer)

    async def _listen(self) -> None:
        host, port = self.settings.health_host, self.settings.health_port
        try:
            await self._health.start(host, port)
        except OSError as error:
            raise SettingsError([f"EDGEFARM_HEALTH_PORT: cannot listen on {host}:{port}: {error.strerror}"]) from error

    def _look_at_configuration(self) -> None:
        if not self._informers.unsynced():
            self._source.look_again()

    async def _lead(self) -> None:
        # Nothing is in force before the cluster was read: it tells which configuration that was.
        await self._informers.synced()
        self._source.look_again()
        # What is in force may need more of it.
        await self._informers.synced()
        await self._election.acquire()
        self._source.take_over()
        async with asyncio.TaskGroup() as group:
            # When the lease is lost, this task fails, and the group cancels all work at once.
            group.create_task(self._election.hold())
            await self._informers.synced()  # what has been taken over may need more, too
            if self._source.current is None:
                self._log.info("waiting", reason=self._source.summary)
            group.create_task(self._manager.run(self.settings.workers))
            group.create_task(self._leafs.run())
            group.create_task(self._agents.run())

    async def _drain(self) -> None:
        self._log.info("stopping")
        if not await self._manager.drain(_DRAIN_SECONDS):
            self._log.warning("passes that did not end in time are cancelled; a later one takes up where they were")

    async def _flush_events(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self._events.drained()
        except TimeoutError:
            self._log.warning("some events were not written")

    def _exit_status(self, tasks: Sequence[asyncio.Task[None]]) -> int:
        failed = next((task for task in tasks if task.done() and not task.cancelled() and task.exception()), None)
        if failed is None:
            return 0
        error = failed.exception()
        lost = error.subgroup(LeaseLostError) if isinstance(error, BaseExceptionGroup) else None
        if lost is not None:
            self._log.error("the lease is lost; all work has stopped", reason=str(lost.exceptions[0]))
        else:
            self._log.error("a part of the reconciler ended unexpectedly", exc_info=error)
        return 1

    def _ready(self) -> Page:
        unsynced = self._informers.unsynced()
        if unsynced:
            return Page.text(f"not ready: waiting for Kubernetes to list {', '.join(unsynced)}", ok=False)
        role = "leading" if self._election.leading else "standing by"
        return Page.text(f"ready, {role}: {self._source.summary}")

    def _has_leafs(self) -> bool:
        return self._source.current is not None and bool(self._source.current.nats.leaf_urls)

    def _resync(self) -> timedelta:
        return self._source.current.resync if self._source.current else _DEFAULT_RESYNC


async def _cancel(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _now() -> datetime:
    return datetime.now(UTC)
