"""Decides for one peer when to probe it, whether its tunnel is alive, and which endpoint to try. Pure.

Times are seconds of one monotonic clock, which is passed in, as is what was observed of the peer.

* We hear a peer from an answered probe on, once WireGuard reports a handshake, until `dead_after` without an answer.
  Who has just fallen silent needs three answers in a row, so that a path at the edge of its reach does not flap.
* A peer is alive while we hear it and it says, in its own probes, that it hears us. WireGuard takes what comes from an
  address only through the tunnel that carries this address, so both ends must take and leave a path together: what one
  of them sends is lost otherwise. Whoever changes its mind says so at once.
* A peer that is heard but late with an answer is probed faster: single lost packets shall not end a path.
* While we do not hear it, each of its endpoints is tried for `try_each`, beginning with the one at hand: it may have
  roamed there. A new handshake prolongs that time, as the endpoint in use is then a good one. While we hear it nothing
  is changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

#: WireGuard tries a handshake every 5 seconds, so this is time for two.
_TRY_EACH: Final = 10.0
#: Answers in a row that bring back who fell silent less than this many times `dead_after` ago.
_ANSWERS_AFTER_SILENCE: Final = 3
_JUST_SILENT: Final = 4
#: A late peer is probed so much faster.
_HURRY: Final = 5
#: Probes that may still be answered; older ones count as lost.
_REMEMBERED: Final = 8
_SEQUENCES: Final = 1 << 16
#: Probes per second that an interface may cost; more peers are probed less often.
_PROBES_PER_SECOND: Final = 200
#: Probes are sent up to this part of the interval earlier, so that those of many hosts do not run in step.
_JITTER: Final = 0.2


@dataclass(frozen=True)
class Cadence:
    """How often a peer is probed, when it counts as dead, and how long each endpoint is tried; in seconds."""

    probe_every: float
    dead_after: float
    try_each: float = _TRY_EACH

    def for_peers(self, count: int) -> Cadence:
        """The same for an interface with so many peers.

        Edge hosts have few peers and decide fast. A gateway of thousands carries each over one tunnel anyway: there it
        only matters that `alive` becomes true and false, so it takes its time and no more than a part of a core.
        """
        slower = max(1.0, count / _PROBES_PER_SECOND / self.probe_every)
        return Cadence(self.probe_every * slower, self.dead_after * slower, self.try_each * slower)

    def spread(self, count: int) -> float:
        """Seconds over which the first probes of so many peers are spread."""
        return min(self.probe_every, count / _PROBES_PER_SECOND)


@dataclass(frozen=True)
class Observation:
    """What WireGuard says about the peer, and what was asked for."""

    options: tuple[str, ...]  # endpoints to try, in this order
    endpoint: str  # in use now; empty: none
    handshake: float  # Unix seconds of the last one; 0: never


@dataclass(frozen=True)
class Path:
    """What is known about one peer."""

    seen: Observation
    since: float  # when the endpoint in use was set, or proved good by a handshake
    due: float  # when to look again
    hears: bool = False  # we hear the peer
    heard: bool = False  # the peer says that it hears us
    rtt: float | None = None  # of the last answered probe
    answered_at: float | None = None
    silent_at: float | None = None  # since when we do not hear it any more
    answers: int = 0  # in a row, while we do not hear it
    turn: int = -1  # the option in use; -1: what was there at the beginning
    sequence: int = 0  # of the next probe
    pending: tuple[tuple[int, float], ...] = ()  # probes without an answer: sequence number, time of sending

    @property
    def alive(self) -> bool:
        """Both ends hear each other."""
        return self.hears and self.heard


@dataclass(frozen=True)
class Step:
    """What to do now: send the probe with this sequence number, which says `path.hears`; use this endpoint."""

    path: Path
    probe: int | None = None
    endpoint: str | None = None


def start(seen: Observation, now: float, delay: float = 0.0) -> Path:
    """A peer that is new to us; it is probed after `delay`."""
    return Path(seen=seen, since=now, due=now + delay)


def observe(path: Path, seen: Observation, now: float) -> Path:
    """The path after a new look at WireGuard."""
    if seen == path.seen:
        return path
    # Another time, not a later one: the clock may have been set back.
    since = now if seen.handshake not in (0, path.seen.handshake) else path.since
    turn = path.turn if seen.options == path.seen.options else -1
    return replace(path, seen=seen, since=since, turn=turn)


def step(path: Path, cadence: Cadence, now: float, jitter: float, early: float = 0.0) -> Step:
    """What to do at `now`; nothing sooner than `early` seconds before `path.due`. `jitter` is a random number from
    0 to 1."""
    path = _aged(path, cadence, now)
    if now + early < path.due:
        return Step(path)
    endpoint = None
    if not path.hears:
        path, endpoint = _next_endpoint(path, cadence, now)
        last = (path.sequence - 1) % _SEQUENCES
        if any(sequence == last for sequence, _ in path.pending):
            path = replace(path, answers=0)
    waiting = tuple((sequence, sent) for sequence, sent in path.pending if now - sent <= cadence.dead_after)
    probed = replace(
        path,
        due=now + _pace(path, cadence, now) * (1 - _JITTER * jitter),
        sequence=(path.sequence + 1) % _SEQUENCES,
        pending=(*waiting[1 - _REMEMBERED :], (path.sequence, now)),
    )
    return Step(probed, probe=path.sequence, endpoint=endpoint)


def answered(path: Path, sequence: int, cadence: Cadence, now: float) -> Path:
    """The path after the answer to a probe; one that nobody waits for changes nothing."""
    path = _aged(path, cadence, now)
    sent = dict(path.pending).get(sequence)
    if sent is None or now - sent > cadence.dead_after:
        return path
    answers = path.answers + 1
    just_silent = path.silent_at is not None and now - path.silent_at < _JUST_SILENT * cadence.dead_after
    enough = answers >= (_ANSWERS_AFTER_SILENCE if just_silent else 1)
    hears = path.hears or (enough and path.seen.handshake > 0)
    return replace(
        path,
        hears=hears,
        rtt=now - sent,
        answered_at=now,
        answers=0 if hears else answers,
        due=path.due if hears == path.hears else now,
        # Answers may overtake each other: what was sent before is not lost because of that.
        pending=tuple(entry for entry in path.pending if entry[0] != sequence),
    )


def told(path: Path, heard: bool, cadence: Cadence, now: float) -> Path:
    """The path after a probe of the peer, which says whether it hears us.

    Where the two ends do not agree, the peer is probed soon: its own probe shows that there may be a way.
    """
    path = _aged(path, cadence, now)
    soon = now if not path.pending else max(now, path.pending[-1][1] + cadence.probe_every / _HURRY)
    return replace(path, heard=heard, due=path.due if path.hears == heard else min(path.due, soon))


def _aged(path: Path, cadence: Cadence, now: float) -> Path:
    """Silent when the last answer is too long ago; it is told so at once."""
    if not path.hears or path.answered_at is None or now - path.answered_at <= cadence.dead_after:
        return path
    return replace(path, hears=False, rtt=None, silent_at=now, answers=0, since=now, turn=-1, due=now)


def _pace(path: Path, cadence: Cadence, now: float) -> float:
    late = path.hears and path.answered_at is not None and now - path.answered_at > cadence.probe_every
    return cadence.probe_every / _HURRY if late else cadence.probe_every


def _next_endpoint(path: Path, cadence: Cadence, now: float) -> tuple[Path, str | None]:
    options = path.seen.options
    waited = now - path.since >= cadence.try_each
    tries_one = path.seen.endpoint != "" or path.turn >= 0
    if not options or (tries_one and not waited):
        return path, None
    if len(options) == 1 and path.seen.endpoint == options[0]:
        return path, None
    turn = (path.turn + 1) % len(options)
    if path.turn < 0 and len(options) > 1 and path.seen.endpoint == options[0]:
        turn = 1  # the first one has been tried: it was there at the beginning
    return replace(path, turn=turn, since=now), options[turn]
