"""Puts the parts together that know, admit and ask agents; one object for the process to run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from reconciler.adapters.agents import AgentBus, AgentCredentials, BusPace, BusTarget
from reconciler.agent_admission import AgentAdmission, Clocks, Cluster
from reconciler.agents import AgentHandler, AgentRegistry, ConnectedAgents
from reconciler.configuration import Configuration
from reconciler.metrics import Metrics

#: An agent is gone when so many heartbeats in a row are missing.
_MISSED_HEARTBEATS: Final = 3


@dataclass(frozen=True)
class AgentPace:
    """`heartbeat` is in seconds: with ten thousand agents some hundreds arrive in each."""

    heartbeat: int = 15
    bus: BusPace = field(default_factory=BusPace)

    @property
    def silence(self) -> float:
        """Seconds after which nobody is believed to be there any more."""
        return float(self.heartbeat * _MISSED_HEARTBEATS)


class AgentService:
    """The agents of edge hosts, while `run` runs and the configuration in force has a mesh."""

    def __init__(
        self,
        cluster: Cluster,
        credentials: AgentCredentials,
        configuration: Callable[[], Configuration | None],
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        log: structlog.stdlib.BoundLogger,
        pace: AgentPace | None = None,
    ) -> None:
        """`credentials` are those of a user of the agents' account."""
        self._pace = pace or AgentPace()
        self._configuration = configuration
        self._log = log
        self._seconds = asyncio.get_running_loop().time
        self._registry = AgentRegistry(self._pace.silence)
        desk = AgentAdmission(self._registry, cluster, Clocks(clock, self._seconds), self._pace.heartbeat, log)
        self.bus = AgentBus(self._target, credentials, desk, log=log, pace=self._pace.bus)
        self.connected = ConnectedAgents(self._registry, self.bus, metrics.agent_request)
        metrics.observe_agents(lambda: float(len(self._registry)))

    def add_handler(self, handler: AgentHandler) -> None:
        """Call `handler` with the names of devices whose agents come and go."""
        self._registry.add_handler(handler)

    def configuration_changed(self) -> None:
        """Another configuration is in force."""
        if self._target() is None:
            self._registry.clear()
        self.bus.look()

    async def run(self) -> None:
        """Hear agents until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.bus.run())
            group.create_task(self._notice_silence())

    async def _notice_silence(self) -> None:
        while True:
            await asyncio.sleep(self._pace.heartbeat / 2)
            for device in self._registry.expire(self._seconds()):
                self._log.warning("an agent is silent", device=device)

    def _target(self) -> BusTarget | None:
        configuration = self._configuration()
        if configuration is None or not configuration.mesh.enabled:
            return None
        return BusTarget(configuration.nats.urls, configuration.nats.ca_bundle)
