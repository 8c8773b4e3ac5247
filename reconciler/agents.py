"""Knows which agents are connected, and asks them: the registry behind `ports.Agents`. It speaks no NATS itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from edgefarm.agentbus import Network, Status
from edgefarm.agentparts import Answer, Request
from edgefarm.errors import AgentRefused, AgentUnavailable, AgentUnsupported, Unavailable
from reconciler.agent_identity import Identity
from reconciler.ports import ConnectedAgent

#: Characters of a host's own words that an error repeats.
_LONGEST_WORDS: Final = 2000

#: Told the names of devices whose agents have registered or went silent.
AgentHandler = Callable[[Sequence[str]], None]


@dataclass
class Entry:
    """An agent, the pod that it is, and when it was heard last (seconds of a clock that never goes back)."""

    agent: ConnectedAgent
    identity: Identity
    heard: float


class AgentRegistry:
    """The agents that were heard of lately. Each device has one at most: the one that registered last."""

    def __init__(self, silence: float) -> None:
        """Who is not heard for `silence` seconds is gone."""
        self._silence = silence
        self._entries: dict[str, Entry] = {}
        self._devices: dict[str, str] = {}
        self._handlers: list[AgentHandler] = []

    def add_handler(self, handler: AgentHandler) -> None:
        """Call `handler` for every change from now on."""
        self._handlers.append(handler)

    def get(self, device: str) -> Entry | None:
        """The agent of a device."""
        return self._entries.get(device)

    def all(self) -> Sequence[Entry]:
        """Sorted by device."""
        return [self._entries[device] for device in sorted(self._entries)]

    def __len__(self) -> int:
        return len(self._entries)

    def register(self, agent: ConnectedAgent, identity: Identity, now: float) -> None:
        """Whoever spoke for the device before does not any more; a session speaks for one device only."""
        before = self._devices.get(agent.session)
        gone = [before] if before is not None and before != agent.device else []
        for device in (*gone, agent.device):
            self._forget(device)
        self._entries[agent.device] = Entry(agent, identity, now)
        self._devices[agent.session] = agent.device
        self._tell([*gone, agent.device])

    def heartbeat(self, session: str, now: float) -> str | None:
        """The device that the session speaks for, None when it does for none."""
        device = self._devices.get(session)
        if device is not None:
            self._entries[device].heard = now
        return device

    def drop(self, session: str) -> None:
        """The session is known to be over."""
        device = self._devices.get(session)
        if device is not None:
            self._forget(device)
            self._tell([device])

    def expire(self, now: float) -> Sequence[str]:
        """Forget who was silent for too long; their devices."""
        silent = sorted(device for device, entry in self._entries.items() if now - entry.heard > self._silence)
        for device in silent:
            self._forget(device)
        self._tell(silent)
        return silent

    def clear(self) -> None:
        """Nobody can be heard any more."""
        devices = sorted(self._entries)
        self._entries.clear()
        self._devices.clear()
        self._tell(devices)

    def _forget(self, device: str) -> None:
        entry = self._entries.pop(device, None)
        if entry is not None:
            del self._devices[entry.agent.session]

    def _tell(self, devices: Sequence[str]) -> None:
        if devices:
            for handler in self._handlers:
                handler(devices)


class AgentBus(Protocol):
    """How requests get to agents."""

    async def exchange(self, session: str, request: Request) -> Answer:
        """Raises AgentUnavailable when no answer comes, InvalidMessage when the request is too large."""
        ...


class ConnectedAgents:
    """Implements `ports.Agents` with the registry and the bus."""

    def __init__(self, registry: AgentRegistry, bus: AgentBus, count: Callable[[str], None]) -> None:
        """`count` is told what became of each request: a `Status`, or `lost` when no answer came."""
        self._registry = registry
        self._bus = bus
        self._count = count

    def get(self, device: str) -> ConnectedAgent | None:
        """The agent of a device, when it is connected."""
        entry = self._registry.get(device)
        return None if entry is None else entry.agent

    def all(self) -> Sequence[ConnectedAgent]:
        """Sorted by device."""
        return [entry.agent for entry in self._registry.all()]

    async def request(
        self,
        device: str,
        data: bytes,
        *,
        timeout: float = 30,  # noqa: ASYNC109 (the host is told, too)
        container: bool = False,
    ) -> bytes:
        """The command's answer; see `ports.Agents`."""
        agent = self.get(device)
        if agent is None:
            raise AgentUnavailable(f"The agent of {device} is not connected.")
        network = Network.CONTAINER if container else Network.HOST
        request = Request(secrets.token_hex(16), timeout, network, data)
        try:
            answer = await self._bus.exchange(agent.session, request)
        except Unavailable as error:
            self._count("lost")
            raise AgentUnavailable(f"{device}: {error}") from error
        self._count(answer.status.value)
        return _result(device, answer)


def _result(device: str, answer: Answer) -> bytes:
    words = " ".join(answer.text.split())[:_LONGEST_WORDS] if answer.status is not Status.DONE else ""
    match answer.status:
        case Status.DONE:
            return answer.data
        case Status.UNSUPPORTED:
            raise AgentUnsupported(words or f"{device} does not offer this.", answer.exit_status)
        case Status.TIMEOUT | Status.BUSY:
            raise AgentUnavailable(f"{device}: {words or answer.status.value}")
        case _:
            raise AgentRefused(words or f"The command failed ({answer.status.value}).", answer.exit_status)
