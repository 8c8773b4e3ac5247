"""When a peer is alive, and which endpoint is tried, as a state machine over time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abbot import liveness
from abbot.liveness import Cadence, Observation, Path

CADENCE = Cadence(probe_every=5.0, dead_after=15.0)
ONE = ("198.51.100.1:51820",)
THREE = ("198.51.100.1:51820", "192.0.2.7:1000", "10.0.0.7:51820")


@dataclass
class Peer:
    """A peer in simulated time: while `reachable` it hears us, and answers after 50 ms."""

    options: tuple[str, ...] = ONE
    cadence: Cadence = CADENCE
    reachable: bool = False
    handshake: float = 0.0
    roamed: str | None = None
    now: float = 0.0
    probes: list[float] = field(default_factory=list)
    endpoints: list[tuple[float, str]] = field(default_factory=list)
    changes: list[tuple[float, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._endpoint = self.options[0] if self.options else ""
        self.path: Path = liveness.start(self._seen(), self.now)

    def _seen(self) -> Observation:
        return Observation(self.options, self.roamed or self._endpoint, self.handshake)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._set(liveness.observe(self.path, self._seen(), self.now))
            step = liveness.step(self.path, self.cadence, self.now, jitter=0.0)
            self._set(step.path)
            if step.endpoint is not None:
                self.endpoints.append((self.now, step.endpoint))
                self._endpoint = step.endpoint
                self.roamed = None
            if step.probe is not None:
                self.probes.append(self.now)
                if self.reachable:
                    self._set(liveness.told(self.path, True, self.cadence, self.now))
                    self._set(liveness.answered(self.path, step.probe, self.cadence, self.now + 0.05))
            self.now += 0.25

    def _set(self, path: Path) -> None:
        if path.alive != self.path.alive:
            self.changes.append((self.now, path.alive))
        self.path = path


def alive_peer(**settings: object) -> Peer:
    peer = Peer(reachable=True, handshake=1.0, **settings)  # type: ignore[arg-type]
    peer.run(1)
    assert peer.path.alive
    return peer


def test_a_peer_is_alive_after_a_handshake_and_one_answer() -> None:
    peer = alive_peer()
    assert peer.changes == [(0.0, True)]
    assert peer.path.rtt == pytest.approx(0.05)


def test_a_probe_that_is_sent_a_little_early_is_timed_from_when_it_was_sent() -> None:
    path = liveness.start(Observation(ONE, ONE[0], 1.0), 0.0, delay=1.0)
    assert liveness.step(path, CADENCE, 0.97, 0.0, early=0.02).probe is None
    step = liveness.step(path, CADENCE, 0.98, 0.0, early=0.02)
    assert step.probe == 0
    assert liveness.answered(step.path, 0, CADENCE, 0.985).rtt == pytest.approx(0.005)


def test_an_answer_without_a_handshake_proves_nothing() -> None:
    peer = Peer(reachable=True, handshake=0.0)
    peer.run(30)
    assert not peer.changes


def test_a_handshake_without_an_answer_is_not_alive() -> None:
    peer = Peer(reachable=False, handshake=1.0)
    peer.run(60)
    assert not peer.changes


def test_a_peer_is_dead_soon_after_dead_after_without_an_answer() -> None:
    peer = alive_peer()
    peer.reachable = False
    peer.run(40)
    (_, _), (when, state) = peer.changes
    assert state is False
    assert CADENCE.dead_after < when <= CADENCE.dead_after + 1.25
    assert peer.path.rtt is None


def test_a_late_peer_is_probed_faster() -> None:
    peer = alive_peer()
    peer.reachable = False
    peer.run(20)
    late = [when for when in peer.probes if 10 <= when <= 15]
    assert len(late) >= 5


def test_a_single_lost_probe_changes_nothing() -> None:
    peer = alive_peer()
    peer.reachable = False
    peer.run(8)
    peer.reachable = True
    peer.run(30)
    assert len(peer.changes) == 1


def test_who_has_just_died_needs_three_answers_in_a_row() -> None:
    peer = alive_peer()
    peer.reachable = False
    peer.run(20)
    peer.reachable = True
    back_at = peer.now
    peer.run(30)
    when, state = peer.changes[-1]
    answered = [probe for probe in peer.probes if back_at <= probe <= when]
    assert state
    assert len(answered) == 3


def test_a_lost_probe_starts_the_count_anew() -> None:
    path = liveness.start(Observation(ONE, ONE[0], 1.0), 0.0)
    path = replace(path, silent_at=0.0, heard=True)
    for number, answer in enumerate((True, True, False, True, True)):
        step = liveness.step(path, CADENCE, number * 5.0, 0.0)
        path = step.path
        if answer and step.probe is not None:
            path = liveness.answered(path, step.probe, CADENCE, number * 5.0 + 0.1)
    assert not path.alive
    step = liveness.step(path, CADENCE, 25.0, 0.0)
    assert step.probe is not None
    assert liveness.answered(step.path, step.probe, CADENCE, 25.1).alive


def test_who_died_long_ago_comes_back_with_one_answer() -> None:
    peer = alive_peer()
    peer.reachable = False
    peer.run(20 + 5 * CADENCE.dead_after)
    peer.reachable = True
    back_at = peer.now
    peer.run(6)
    when, state = peer.changes[-1]
    assert state
    assert len([probe for probe in peer.probes if back_at <= probe <= when]) == 1


def heard_by_peer() -> Path:
    """A new peer that says that it hears us."""
    return liveness.told(liveness.start(Observation(ONE, ONE[0], 1.0), 0.0), True, CADENCE, 0.0)


def test_a_peer_that_does_not_hear_us_is_not_alive() -> None:
    path = liveness.step(liveness.start(Observation(ONE, ONE[0], 1.0), 0.0), CADENCE, 0.0, 0.0).path
    path = liveness.answered(path, 0, CADENCE, 0.1)
    assert (path.hears, path.alive) == (True, False)
    path = liveness.told(path, True, CADENCE, 0.2)
    assert path.alive
    path = liveness.told(path, False, CADENCE, 1.0)
    assert not path.alive


def test_a_change_of_mind_is_said_at_once() -> None:
    path = liveness.step(heard_by_peer(), CADENCE, 0.0, 0.0).path
    path = liveness.answered(path, 0, CADENCE, 0.1)
    step = liveness.step(path, CADENCE, 0.1, 0.0)
    assert (step.probe, step.path.hears) == (1, True)
    step = liveness.step(step.path, CADENCE, 20.0, 0.0)
    assert (step.probe, step.path.hears) == (2, False)


def test_a_probe_of_a_peer_that_we_do_not_hear_hastens_ours_but_not_without_limit() -> None:
    path = liveness.step(liveness.start(Observation(ONE, ONE[0], 1.0), 0.0), CADENCE, 0.0, 0.0).path
    assert path.due == 5.0
    for when in (0.1, 0.2, 0.9):
        path = liveness.told(path, True, CADENCE, when)
        assert path.due == 1.0


def test_two_ends_agree_within_a_round_trip() -> None:
    """Both hear each other in the same moment, whatever their probes' phases are."""
    latency = 0.04
    ends = [liveness.start(Observation(ONE, ONE[0], 1.0), 0.0, delay) for delay in (0.0, 3.0)]
    became: list[float | None] = [None, None]
    wires: list[tuple[float, int, str, int, bool]] = []  # arrival, to whom, what, sequence, word
    now = 0.0
    while now < 8.0:
        for wire in sorted(wire for wire in wires if wire[0] <= now):
            wires.remove(wire)
            _, end, kind, sequence, word = wire
            if kind == "probe":
                ends[end] = liveness.told(ends[end], word, CADENCE, now)
                wires.append((now + latency, 1 - end, "answer", sequence, False))
            else:
                ends[end] = liveness.answered(ends[end], sequence, CADENCE, now)
        for end in (0, 1):
            step = liveness.step(ends[end], CADENCE, now, 0.0)
            ends[end] = step.path
            if step.probe is not None:
                wires.append((now + latency, 1 - end, "probe", step.probe, step.path.hears))
            if step.path.alive and became[end] is None:
                became[end] = now
        now += 0.01
    assert became[0] is not None
    assert became[1] is not None
    assert abs(became[0] - became[1]) <= latency + 0.03
    assert max(became[0], became[1]) < 1.5


def test_an_answer_to_an_unknown_or_old_probe_changes_nothing() -> None:
    path = liveness.step(heard_by_peer(), CADENCE, 0.0, 0.0).path
    assert liveness.answered(path, 7, CADENCE, 0.1) == path
    assert liveness.answered(path, 0, CADENCE, CADENCE.dead_after + 1) == path
    once = liveness.answered(path, 0, CADENCE, 0.1)
    assert once.alive
    assert liveness.answered(once, 0, CADENCE, 0.2) == once


def test_endpoints_are_tried_in_turn_while_the_peer_is_not_alive() -> None:
    peer = Peer(options=THREE)
    peer.run(41)
    assert [endpoint for _, endpoint in peer.endpoints] == [THREE[1], THREE[2], THREE[0], THREE[1]]
    times = [when for when, _ in peer.endpoints]
    assert times == [10, 20, 30, 40]


def test_a_peer_without_endpoint_is_given_its_first_candidate_at_once() -> None:
    path = liveness.start(Observation(THREE, "", 0.0), 0.0)
    first = liveness.step(path, CADENCE, 0.0, 0.0)
    assert first.endpoint == THREE[0]
    # The next look has not been taken yet: that one has its time.
    assert liveness.step(first.path, CADENCE, 5.0, 0.0).endpoint is None
    assert liveness.step(first.path, CADENCE, 10.0, 0.0).endpoint == THREE[1]


def test_a_peer_with_no_endpoints_is_waited_for() -> None:
    peer = Peer(options=())
    peer.run(60)
    assert not peer.endpoints


def test_a_single_endpoint_is_not_set_again_and_again() -> None:
    peer = Peer()
    peer.run(60)
    assert not peer.endpoints


def test_an_endpoint_that_roamed_is_kept_while_the_peer_is_alive() -> None:
    peer = alive_peer(options=THREE)
    peer.roamed = "203.0.113.9:4444"
    peer.run(300)
    assert not peer.endpoints
    assert len(peer.changes) == 1


def test_an_endpoint_that_roamed_is_given_up_after_its_time_when_the_peer_is_dead() -> None:
    peer = alive_peer(options=THREE)
    peer.roamed = "203.0.113.9:4444"
    peer.run(60)
    peer.reachable = False
    peer.run(60)
    died = peer.changes[-1][0]
    when, endpoint = peer.endpoints[0]
    assert when - died >= CADENCE.try_each
    assert endpoint == THREE[0]


@pytest.mark.parametrize("before", [0.0, 1000.0])
def test_a_new_handshake_prolongs_the_time_of_an_endpoint_also_when_the_clock_was_set_back(before: float) -> None:
    peer = Peer(options=THREE, handshake=before)
    peer.run(8)
    peer.handshake = 100.0
    peer.run(9)
    assert not peer.endpoints
    peer.run(8)
    assert [endpoint for _, endpoint in peer.endpoints] == [THREE[1]]


def test_new_endpoints_are_tried_from_the_first() -> None:
    peer = Peer(options=THREE)
    peer.run(11)
    peer.options = ("192.0.2.200:1", "192.0.2.201:1")
    peer.run(11)
    assert peer.endpoints[-1][1] == "192.0.2.200:1"


@pytest.mark.parametrize(("peers", "every"), [(1, 5.0), (1000, 5.0), (2000, 10.0), (10_000, 50.0)])
def test_probes_of_a_gateway_stay_within_their_rate(peers: int, every: float) -> None:
    cadence = CADENCE.for_peers(peers)
    assert cadence.probe_every == every
    assert cadence.dead_after / cadence.probe_every == CADENCE.dead_after / CADENCE.probe_every
    assert cadence.spread(peers) <= cadence.probe_every


steps = st.lists(st.tuples(st.floats(0.01, 20.0), st.booleans(), st.booleans()), max_size=60)


@given(steps, st.floats(0, 1))
def test_whatever_happens_who_is_alive_was_heard_within_dead_after(
    events: list[tuple[float, bool, bool]], jitter: float
) -> None:
    path = liveness.start(Observation(THREE, THREE[0], 0.0), 0.0)
    now = 0.0
    heard: float | None = None
    for wait, answers, shakes in events:
        now += wait
        if shakes:
            path = liveness.observe(path, replace(path.seen, handshake=now), now)
        step = liveness.step(path, CADENCE, now, jitter)
        path = step.path
        assert step.endpoint is None or not path.alive
        assert path.due > now or step.probe is None
        assert len(path.pending) <= 8
        if answers and step.probe is not None:
            path = liveness.told(liveness.answered(path, step.probe, CADENCE, now), True, CADENCE, now)
            heard = now
        if path.alive:
            assert heard is not None
            assert now - heard <= CADENCE.dead_after
            assert path.seen.handshake > 0


@given(steps)
def test_a_peer_that_always_answers_never_dies(events: list[tuple[float, bool, bool]]) -> None:
    peer = alive_peer(options=THREE)
    peer.run(sum(wait for wait, _, _ in events[:10]))
    assert peer.changes == [(0.0, True)]
