"""Which way the pod reaches its network, the leaf of its node or the hub: a pure state machine beside `session`.

It is fed what was found out about reachability and says when to look again (`Look`) and which way to take (`Take`).
The leaf is preferred. It is left at once when it refuses connections and the hub works, after some patience when it
does not answer; it is taken again when it has been reachable for a while, so that one that comes and goes does not drag
the pods along. A network without leafs needs no looking at all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final


class Place(Enum):
    """Where the pod's traffic goes."""

    LEAF = "leaf"
    HUB = "hub"


class Reach(Enum):
    """What came of an attempt to connect."""

    WORKS = "works"
    REFUSES = "refuses"  # at once: nobody listens there, or it is not to be trusted
    SILENT = "silent"  # no answer in time
    DENIES = "denies"  # a server is there, but does not accept our credentials (yet)


@dataclass(frozen=True)
class Answer:
    """What came of it, and one sentence for people when it does not work."""

    reach: Reach
    problem: str = ""

    @property
    def works(self) -> bool:
        return self.reach is Reach.WORKS


@dataclass(frozen=True)
class Timing:
    """Periods in seconds."""

    #: How long the leaf in use may fail before the hub is taken.
    patience: float = 3.0
    #: How long the leaf must be reachable before it is taken again.
    steady: float = 10.0
    #: Between two looks at a leaf that is known to be there (or was, not long ago).
    watch: float = 5.0
    #: Between two looks while something is in doubt.
    retry: float = 1.0
    #: Between two looks where no leaf was found, because most pods run elsewhere. The first ones follow sooner, after
    #: `retry`, twice that and so on: the leaf of a node that has just started may start a little later than its pods.
    search: float = 45.0
    #: A leaf that was there is expected back for so long.
    remember: float = 300.0


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Offered:
    """The access document names these leaf URLs (none: the network has no leafs)."""

    leaf: tuple[str, ...]


@dataclass(frozen=True)
class Looked:
    """What came of `Look`; None for what was not asked."""

    leaf: Answer
    hub: Answer | None = None


class Signal(Enum):
    """Events that carry nothing."""

    TROUBLE = "trouble"  # a connection by the present route failed or broke
    TICK = "tick"  # time has passed


Event = Offered | Looked | Signal


# ── actions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Look:
    """Try the leaf, and then the hub if the answer matters: when the leaf in use fails, or one not in use works.

    `login`: try with our credentials, not only whether a server answers. Answer with Looked.
    """

    current: Place | None
    login: bool

    def needs_hub(self, leaf: Answer) -> bool:
        """Whether the hub must be tried, too."""
        return self.current is not None and leaf.works == (self.current is Place.HUB)


@dataclass(frozen=True)
class Take:
    """Go this way from now on; `reason` is for the log."""

    place: Place
    reason: str


Action = Look | Take


# ── state ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#: Part of the search period that the jitter may take away.
_JITTER: Final = 0.2


@dataclass(frozen=True)
class State:
    """All that is remembered. Times are seconds of one clock."""

    leaf: tuple[str, ...] = ()
    place: Place | None = None
    changes: int = 0
    #: When the look that is under way began.
    looking_since: float | None = None
    look_at: float | None = None
    looked_at: float | None = None
    troubled: bool = False
    failing_since: float | None = None
    working_since: float | None = None
    #: When a leaf was last seen on this node.
    seen_at: float | None = None
    #: How often it was looked for in vain since.
    searches: int = 0

    @property
    def wake_at(self) -> float | None:
        """When a Tick is due."""
        return None if self.looking_since is not None else self.look_at


_Step = tuple[State, tuple[Action, ...]]


def advance(state: State, event: Event, now: float, jitter: float, timing: Timing) -> _Step:
    """The next state and what to do. `jitter` is a random number from 0 up to 1."""
    match event:
        case Offered():
            return _offered(state, event, now)
        case Looked():
            return _looked(state, event, now, jitter, timing)
        case Signal.TROUBLE:
            return _trouble(state, now, timing)
        case Signal.TICK:
            due = state.wake_at is not None and now >= state.wake_at
            return _look(state, now) if due else (state, ())


def _offered(state: State, event: Offered, now: float) -> _Step:
    if event.leaf == state.leaf and state.place is not None:
        return state, ()
    state = replace(state, leaf=event.leaf, failing_since=None, working_since=None, seen_at=None, searches=0)
    if not event.leaf:
        state = replace(state, look_at=None, troubled=False)
        return (state, ()) if state.place is Place.HUB else _take(state, Place.HUB, "the network has no leafs")
    if state.looking_since is not None:  # at the URLs of before
        return replace(state, troubled=True), ()
    return _look(state, now)


def _look(state: State, now: float) -> _Step:
    login = state.place is not Place.LEAF or state.troubled or state.failing_since is not None
    looking = replace(state, looking_since=now, looked_at=now, look_at=None, troubled=False)
    return looking, (Look(state.place, login),)


def _trouble(state: State, now: float, timing: Timing) -> _Step:
    if not state.leaf:
        return state, ()
    if state.looking_since is not None:
        return replace(state, troubled=True), ()  # that look may have begun before the trouble
    # At the hub not as often: all pods of the cluster see it when the hub is away, and few are at the edge.
    spacing = timing.retry if state.place is Place.LEAF else timing.watch
    soonest = now if state.looked_at is None else max(now, state.looked_at + spacing)
    look_at = soonest if state.look_at is None else min(state.look_at, soonest)
    state = replace(state, look_at=look_at, troubled=True)
    return _look(state, now) if look_at <= now else (state, ())


def _looked(state: State, event: Looked, now: float, jitter: float, timing: Timing) -> _Step:
    began = now if state.looking_since is None else state.looking_since
    state = replace(state, looking_since=None)
    if not state.leaf:  # withdrawn meanwhile
        return state, ()
    if event.leaf.reach in (Reach.WORKS, Reach.DENIES):
        state = replace(state, seen_at=now, searches=0)
    else:
        state = replace(state, searches=state.searches + 1)
    actions: tuple[Action, ...]
    match state.place:
        case None:
            state, actions = _first(state, event)
        case Place.LEAF:
            state, actions = _at_leaf(state, event, began, now, timing)
        case Place.HUB:
            state, actions = _at_hub(state, event, began, now, timing)
    return replace(state, look_at=now + _wait(state, began, now, jitter, timing)), actions


def _first(state: State, event: Looked) -> _Step:
    if event.leaf.works:
        return _take(state, Place.LEAF, "this node has a leaf")
    return _take(state, Place.HUB, f"no leaf for this pod: {event.leaf.problem}")


def _at_leaf(state: State, event: Looked, began: float, now: float, timing: Timing) -> _Step:
    if event.leaf.works:
        return replace(state, failing_since=None), ()
    since = began if state.failing_since is None else state.failing_since
    state = replace(state, failing_since=since)
    hub_works = event.hub is not None and event.hub.works
    if hub_works and (event.leaf.reach is Reach.REFUSES or now - since >= timing.patience):
        return _take(state, Place.HUB, event.leaf.problem)
    return state, ()  # without a hub there is nothing better than to wait for the leaf


def _at_hub(state: State, event: Looked, began: float, now: float, timing: Timing) -> _Step:
    if not event.leaf.works:
        return replace(state, working_since=None), ()
    if event.hub is not None and not event.hub.works:
        return _take(state, Place.LEAF, f"the leaf works and the hub does not: {event.hub.problem}")
    since = began if state.working_since is None else state.working_since
    state = replace(state, working_since=since)
    if now - since >= timing.steady:
        return _take(state, Place.LEAF, f"the leaf has been reachable for {timing.steady:g} s")
    return state, ()


def _take(state: State, place: Place, reason: str) -> _Step:
    changes = state.changes if state.place is None else state.changes + 1
    taken = replace(state, place=place, changes=changes, failing_since=None, working_since=None)
    return taken, (Take(place, reason),)


def _wait(state: State, began: float, now: float, jitter: float, timing: Timing) -> float:
    """Seconds until the next look; the last one began at `began`."""
    if state.place is Place.LEAF:
        in_doubt = state.troubled or (state.failing_since is not None and now - state.failing_since < timing.patience)
        # A look that waited for long has waited for the next one, too: the hub must not come later for that.
        return max(0.0, began + timing.retry - now) if in_doubt else timing.watch
    if state.working_since is not None:
        return min(timing.watch, timing.steady / 4)
    expected = state.seen_at is not None and now - state.seen_at < timing.remember
    if expected or state.troubled:
        return timing.watch
    longest = timing.search * (1 - _JITTER * jitter)
    return min(longest, timing.retry * 2.0 ** min(state.searches - 1, 16))
