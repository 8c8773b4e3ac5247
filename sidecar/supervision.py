"""When daprd is started, given new credentials, restarted: a pure state machine beside `session`.

daprd reads its credentials once, when it loads the component, and says nothing when its NATS connection has closed for
good (two minutes of outage, or a key that was taken away). So it is watched from outside: which connections to NATS
the process has, and whether NATS can be reached at all. What is tried, in this order: new credentials, loading the
component again, a graceful restart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

#: How long daprd may be without a connection to a reachable NATS before something is done, and between two attempts.
#: Its client tries again every two seconds and gives up for good after two refusals.
LOST_PATIENCE: Final = 6.0
#: How long loading the component again may take until daprd has a new connection.
RELOAD_PATIENCE: Final = 15.0
FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 30.0
#: After so many seconds of running, the next crash counts as the first.
STEADY: Final = 60.0


class Phase(Enum):
    """What daprd does, as far as we know."""

    ABSENT = "absent"
    RUNNING = "running"
    WAITING = "waiting"  # it ended by itself; started again at `start_at`
    ENDING = "ending"  # told to end; started again when it has
    STOPPING = "stopping"  # told to end, for good


@dataclass(frozen=True)
class CredentialsChanged:
    """There are (new) credentials; `urgent` when what daprd has loaded will not do until the next renewal.

    Otherwise daprd is left alone: loading a component ends its consumers, and with them their place in the stream.
    `distrusts`: it does not know the authority of the servers that it is to use; it reads these only when it starts.
    """

    urgent: bool
    distrusts: bool = False


@dataclass(frozen=True)
class Observed:
    """daprd's connections to NATS (any stable identity of each), and whether NATS can be reached from this pod."""

    connections: frozenset[int]
    reachable: bool


class Signal(Enum):
    """Events that carry nothing."""

    EXITED = "exited"  # daprd has ended
    TICK = "tick"  # time has passed
    STOP = "stop"  # the process ends


Event = CredentialsChanged | Observed | Signal


class Action(Enum):
    """What the runner does."""

    START = "start"  # write the component and start daprd
    RELOAD = "reload"  # write the component again; daprd loads it
    TERMINATE = "terminate"  # SIGTERM
    RENEW = "renew"  # tell the session that the credentials are refused


@dataclass(frozen=True)
class State:
    """What is known of daprd. Times are seconds of one clock."""

    phase: Phase = Phase.ABSENT
    started_at: float = 0.0
    start_at: float = 0.0
    crashes: int = 0
    restarts: int = 0
    connections: frozenset[int] = frozenset()
    old_connections: frozenset[int] | None = None  # before a reload that is not confirmed yet
    reload_until: float = 0.0
    lost_since: float | None = None
    lost_attempts: int = 0

    @property
    def wake_at(self) -> float | None:
        """When a Tick is due."""
        return self.start_at if self.phase is Phase.WAITING else None


def advance(state: State, event: Event, now: float, jitter: float) -> tuple[State, tuple[Action, ...]]:
    """The next state and what to do."""
    match event:
        case CredentialsChanged():
            return _credentials_changed(state, event, now)
        case Signal.EXITED:
            return _exited(state, now, jitter)
        case Observed():
            return _observed(state, event, now)
        case Signal.STOP:
            running = state.phase in (Phase.RUNNING, Phase.ENDING)
            return replace(state, phase=Phase.STOPPING), (Action.TERMINATE,) if running else ()
        case Signal.TICK:
            if state.phase is Phase.WAITING and now >= state.start_at:
                return _start(state, now)
            return state, ()


def _start(state: State, now: float) -> tuple[State, tuple[Action, ...]]:
    started = State(phase=Phase.RUNNING, started_at=now, crashes=state.crashes, restarts=state.restarts)
    return started, (Action.START,)


def _credentials_changed(state: State, event: CredentialsChanged, now: float) -> tuple[State, tuple[Action, ...]]:
    if state.phase is Phase.ABSENT:
        return _start(state, now)
    if state.phase is Phase.RUNNING and event.distrusts:
        return replace(state, phase=Phase.ENDING, old_connections=None), (Action.TERMINATE,)
    if state.phase is Phase.RUNNING and (event.urgent or state.lost_since is not None):
        return _reload(state, now)
    return state, ()  # a start that is coming takes the new ones


def _reload(state: State, now: float) -> tuple[State, tuple[Action, ...]]:
    reloading = replace(state, old_connections=state.connections, reload_until=now + RELOAD_PATIENCE, lost_since=None)
    return reloading, (Action.RELOAD,)


def _exited(state: State, now: float, jitter: float) -> tuple[State, tuple[Action, ...]]:
    if state.phase is Phase.ENDING:
        return _start(replace(state, restarts=state.restarts + 1), now)
    if state.phase is not Phase.RUNNING:
        return state, ()
    crashes = 1 if now - state.started_at >= STEADY else state.crashes + 1
    delay = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(crashes - 1, 16)) * (1 - jitter / 2)
    waiting = State(phase=Phase.WAITING, start_at=now + delay, crashes=crashes, restarts=state.restarts + 1)
    return waiting, ()


def _observed(state: State, event: Observed, now: float) -> tuple[State, tuple[Action, ...]]:
    if state.phase is not Phase.RUNNING:
        return state, ()
    state = replace(state, connections=event.connections)
    if state.old_connections is not None:
        if event.connections - state.old_connections:
            return replace(state, old_connections=None, lost_since=None, lost_attempts=0), ()
        if now < state.reload_until or not event.reachable:
            return state, ()
        return replace(state, phase=Phase.ENDING, old_connections=None), (Action.TERMINATE,)
    if event.connections:
        return replace(state, lost_since=None, lost_attempts=0), ()
    if not event.reachable:
        return replace(state, lost_since=None), ()
    if state.lost_since is None:
        return replace(state, lost_since=now), ()
    if now - state.lost_since < LOST_PATIENCE:
        return state, ()
    tried = replace(state, lost_since=now, lost_attempts=state.lost_attempts + 1)
    if tried.lost_attempts == 1:
        return tried, (Action.RENEW,)
    return _reload(tried, now)
