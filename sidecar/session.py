"""How the sidecar comes to credentials and keeps them fresh: a pure state machine, state + event -> state + actions.

One round is login (when the Vault token is missing or old), read the access document and, when credentials are due,
sign and write. Between rounds the session is idle until `State.next_at`. No I/O, no clock, no randomness in here: the
runner performs the actions, reports what came of them as events, and passes in the time and a random number.

    IDLE ──TICK──> LOGIN ──LoggedIn──> READ ──AccessRead──> SIGN ──Signed──> WRITE ──WRITTEN──> IDLE
                     └───────────────────┴──── Failed ────────┴────────────────┘──────────────> IDLE (back-off)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from edgefarm import names
from sidecar.access import AccessDocument
from sidecar.credentials import LATEST_RENEWAL, Credentials
from sidecar.log import utc

#: Part of a period that the jitter may take away, so that the pods of a node do not ask all at once.
JITTER: Final = 0.1
#: A Vault token is not used in the last part of its lease: it could end between two requests.
TOKEN_SAFETY: Final = 0.8
FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 30.0


class Phase(Enum):
    """What the session waits for."""

    IDLE = "idle"
    LOGIN = "login"
    READ = "read"
    SIGN = "sign"
    WRITE = "write"
    STOPPED = "stopped"


class Failure(Enum):
    """Why a step failed; decides how soon it is tried again and whether the grant is in doubt."""

    UNAVAILABLE = "unavailable"  # Vault did not answer or cannot serve
    DENIED = "denied"  # Vault answered no: there is no grant (any more)
    INVALID = "invalid"  # something cannot be read or written: token file, document, disk


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Started:
    """The process started and found these credentials of an earlier run."""

    persisted: Credentials | None


@dataclass(frozen=True)
class LoggedIn:
    """Vault gave a token that is valid for so many seconds."""

    lease_seconds: float


@dataclass(frozen=True)
class AccessRead:
    """The access document as it is now."""

    access: AccessDocument


@dataclass(frozen=True)
class Signed:
    """New credentials exist in memory."""

    credentials: Credentials


@dataclass(frozen=True)
class Failed:
    """The step in progress failed; `message` is one sentence for a human."""

    kind: Failure
    message: str


class Signal(Enum):
    """Events that carry nothing."""

    WRITTEN = "written"  # the new credentials are on disk
    REFUSED = "refused"  # daprd lost its connection for good: get new credentials at once
    TICK = "tick"  # time has passed
    STOP = "stop"  # the process ends


Event = Started | LoggedIn | AccessRead | Signed | Failed | Signal


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Sign:
    """Make a user key and have its claims signed; answer with Signed or Failed."""

    access: AccessDocument


@dataclass(frozen=True)
class Write:
    """Write the credentials to disk; answer with Signal.WRITTEN or Failed."""

    credentials: Credentials


@dataclass(frozen=True)
class Apply:
    """The credentials in force are new: hand them to daprd, if there is one. No answer."""

    credentials: Credentials


class Request(Enum):
    """Actions that carry nothing."""

    LOGIN = "log in"  # to Vault; answer with LoggedIn or Failed
    READ_ACCESS = "read access"  # answer with AccessRead or Failed


Action = Request | Sign | Write | Apply


# ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Timing:
    """Periods in seconds: how often the access document is read, and how soon after a refusal."""

    refresh: float = 30.0
    grant_retry: float = 2.0


@dataclass(frozen=True)
class State:
    """All that the session remembers. Times are Unix seconds."""

    phase: Phase = Phase.IDLE
    held: Credentials | None = None
    #: When credentials of an earlier run had ended (Unix seconds) that were found at the start.
    found_ended_at: float | None = None
    pending: Credentials | None = None
    renew_at: float = 0.0
    next_at: float = 0.0
    token_until: float = 0.0
    token_is_fresh: bool = False
    wanted: bool = True  # new credentials are due whatever the document says
    problem: Failed | None = None
    refusal: str | None = None  # why Vault last said no; holds until a round succeeds
    attempts: int = 0
    renewals: int = 0

    def readiness(self, now: float) -> tuple[bool, str]:
        """Whether the pod has working credentials, and one sentence that says so or why not."""
        if self.refusal is not None:
            return False, self.refusal
        if self.held is not None and self.held.usable(now):
            return True, "credentials are in place"
        if self.problem is not None:
            return False, self.sentence(self.problem, now)
        ended_at = self.ended_at(now)
        return False, "waiting for the first credentials" if ended_at is None else _ended(ended_at)

    def ended_at(self, now: float) -> float | None:
        """Since when the credentials are worth nothing any more; None while they are, or when there never were any."""
        if self.held is None:
            return self.found_ended_at
        return None if self.held.usable(now) else self.held.expires_at

    def sentence(self, failed: Failed, now: float) -> str:
        """What a failure means for this pod, as one sentence."""
        ended_at = self.ended_at(now)
        if ended_at is not None:
            return f"{_ended(ended_at)}, which fails: {failed.message}"
        if self.held is not None or failed.kind is not Failure.UNAVAILABLE:
            return failed.message
        return (
            f"{failed.message}: this pod has no credentials of an earlier run and needs the uplink once, also where "
            "its node has a leaf (afterwards it restarts without one, and with the annotation "
            f'{names.ANNOTATION_PERSIST}: "disk" its node may reboot, too)'
        )


def _ended(moment: float) -> str:
    return f"the credentials of this pod ended on {utc(moment)}, and no server accepts it until they are renewed"


@dataclass(frozen=True)
class Moment:
    """When an event happened, a random number from 0 up to 1, and the configured periods."""

    now: float
    jitter: float
    timing: Timing


_Step = tuple[State, tuple[Action, ...]]
_Handler = Callable[[State, Event, Moment], _Step]


def advance(state: State, event: Event, moment: Moment) -> _Step:
    """The next state and what to do; ValueError for an event that cannot happen in this phase."""
    if event is Signal.STOP or state.phase is Phase.STOPPED:
        return replace(state, phase=Phase.STOPPED), ()
    key = event if isinstance(event, Signal) else type(event)
    handler = _TRANSITIONS[state.phase].get(key)
    if handler is None:
        raise ValueError(f"{key} cannot happen in phase {state.phase.value}")
    return handler(state, event, moment)


def _start(state: State, event: Event, moment: Moment) -> _Step:
    assert isinstance(event, Started)
    held = event.persisted
    if held is None or not held.usable(moment.now):
        ended_at = None if held is None else float(held.expires_at)
        return _begin_round(replace(state, found_ended_at=ended_at), moment)
    # What an earlier run left serves at once, also while Vault is away; new credentials follow in the background.
    state, actions = _begin_round(replace(state, held=held, renew_at=_renewal_time(held, moment)), moment)
    return state, (Apply(held), *actions)


def _tick(state: State, _event: Event, moment: Moment) -> _Step:
    # A clock that was set back must not make us wait for the time it showed before.
    clock_went_back = state.next_at - moment.now > moment.timing.refresh + LONGEST_BACKOFF
    if moment.now < state.next_at and not clock_went_back:
        return state, ()
    return _begin_round(state, moment)


def _begin_round(state: State, moment: Moment) -> _Step:
    if moment.now < state.token_until:
        return replace(state, phase=Phase.READ, token_is_fresh=False), (Request.READ_ACCESS,)
    return replace(state, phase=Phase.LOGIN), (Request.LOGIN,)


def _logged_in(state: State, event: Event, moment: Moment) -> _Step:
    assert isinstance(event, LoggedIn)
    token_until = moment.now + event.lease_seconds * TOKEN_SAFETY
    return replace(state, phase=Phase.READ, token_until=token_until, token_is_fresh=True), (Request.READ_ACCESS,)


def _access_read(state: State, event: Event, moment: Moment) -> _Step:
    assert isinstance(event, AccessRead)
    held = state.held
    due = held is None or not held.suit(event.access) or moment.now >= state.renew_at
    if due or state.wanted or state.refusal is not None:
        return replace(state, phase=Phase.SIGN), (Sign(event.access),)
    return _rest(state, moment), ()


def _signed(state: State, event: Event, _moment: Moment) -> _Step:
    assert isinstance(event, Signed)
    return replace(state, phase=Phase.WRITE, pending=event.credentials), (Write(event.credentials),)


def _written(state: State, _event: Event, moment: Moment) -> _Step:
    held = state.pending
    assert held is not None
    state = replace(
        state,
        held=held,
        pending=None,
        wanted=False,
        renewals=state.renewals + 1,
        renew_at=_renewal_time(held, moment),
    )
    return _rest(state, moment), (Apply(held),)


def _failed(state: State, event: Event, moment: Moment) -> _Step:
    assert isinstance(event, Failed)
    if event.kind is Failure.DENIED and state.phase is not Phase.LOGIN and not state.token_is_fresh:
        # The token may be what is wrong (ended early, Vault restored): only the answer to a new one counts.
        return replace(state, phase=Phase.LOGIN, token_until=0.0), (Request.LOGIN,)
    denied = event.kind is Failure.DENIED
    longest = moment.timing.grant_retry if denied else LONGEST_BACKOFF
    delay = min(longest, FIRST_BACKOFF * 2.0 ** min(state.attempts, 16)) * (1 - moment.jitter / 2)
    return (
        replace(
            state,
            phase=Phase.IDLE,
            pending=None,
            problem=event,
            refusal=event.message if denied else state.refusal,
            attempts=state.attempts + 1,
            next_at=moment.now + delay,
            token_until=0.0 if denied else state.token_until,
        ),
        (),
    )


def _refused_while_idle(state: State, _event: Event, moment: Moment) -> _Step:
    # Not before `next_at` when Vault has just failed: the back-off holds for this reason, too.
    soon = state.next_at if state.problem is not None else moment.now
    return replace(state, wanted=True, next_at=min(state.next_at, soon)), ()


def _refused_during_round(state: State, _event: Event, _moment: Moment) -> _Step:
    return replace(state, wanted=True), ()


def _nothing(state: State, _event: Event, _moment: Moment) -> _Step:
    return state, ()


def _rest(state: State, moment: Moment) -> State:
    refresh = moment.timing.refresh
    if state.held is not None:
        refresh = min(refresh, state.held.access.renew_every_seconds)
    next_at = min(moment.now + refresh * (1 - JITTER * moment.jitter), max(state.renew_at, moment.now))
    return replace(state, phase=Phase.IDLE, problem=None, refusal=None, attempts=0, next_at=next_at)


def _renewal_time(held: Credentials, moment: Moment) -> float:
    wished = held.access.renew_every_seconds * (1 - JITTER * moment.jitter)
    return held.issued_at + min(wished, (held.expires_at - held.issued_at) * LATEST_RENEWAL)


_Handlers = Mapping[type[Event] | Signal, _Handler]
_DURING_ROUND: Final[_Handlers] = {
    Failed: _failed,
    Signal.REFUSED: _refused_during_round,
    Signal.TICK: _nothing,
}
_TRANSITIONS: Final[Mapping[Phase, _Handlers]] = {
    Phase.IDLE: {Started: _start, Signal.TICK: _tick, Signal.REFUSED: _refused_while_idle},
    Phase.LOGIN: {**_DURING_ROUND, LoggedIn: _logged_in},
    Phase.READ: {**_DURING_ROUND, AccessRead: _access_read},
    Phase.SIGN: {**_DURING_ROUND, Signed: _signed},
    Phase.WRITE: {**_DURING_ROUND, Signal.WRITTEN: _written},
}
