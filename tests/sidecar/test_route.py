"""Leaf or hub, as tables: observations and times in, decisions out."""

from __future__ import annotations

import itertools

import pytest

from sidecar.route import (
    Action,
    Answer,
    Event,
    Look,
    Looked,
    Offered,
    Place,
    Reach,
    Signal,
    State,
    Take,
    Timing,
    advance,
)

TIMING = Timing()
LEAF, NONE = Offered(("tls://leaf",)), Offered(())
WORKS, REFUSES, SILENT, DENIES = (Answer(reach, reach.value) for reach in Reach)
TICK, TROUBLE = Signal.TICK, Signal.TROUBLE


def play(state: State, *events: tuple[float, Event]) -> tuple[State, list[Action]]:
    """Play events at their times; return the last state and all actions."""
    actions: list[Action] = []
    for now, event in events:
        state, more = advance(state, event, now, 0.0, TIMING)
        actions += more
    return state, actions


def taken(actions: list[Action]) -> list[Place]:
    return [action.place for action in actions if isinstance(action, Take)]


def at(place: Place) -> State:
    """A pod that found a leaf at its start, or none, at time 0."""
    return play(State(), (0, LEAF), (0, Looked(WORKS if place is Place.LEAF else SILENT)))[0]


def looks(state: State, answer: Looked, until: float) -> tuple[State, list[float], list[Action]]:
    """Answer every look the same way until some time; return also when looks began."""
    times: list[float] = []
    actions: list[Action] = []
    while state.wake_at is not None and state.wake_at <= until:
        now = state.wake_at
        state, more = play(state, (now, TICK), (now, answer))
        times.append(now)
        actions += more
    return state, times, actions


def test_a_network_without_leafs_takes_the_hub_and_never_looks() -> None:
    state, actions = play(State(), (0, NONE), (1, TICK), (2, TROUBLE), (3, NONE))
    assert actions == [Take(Place.HUB, "the network has no leafs")]
    assert state.wake_at is None


@pytest.mark.parametrize(
    ("answer", "place"), [(WORKS, Place.LEAF), (REFUSES, Place.HUB), (SILENT, Place.HUB), (DENIES, Place.HUB)]
)
def test_the_first_look_decides_at_once(answer: Answer, place: Place) -> None:
    state, actions = play(State(), (0, LEAF))
    assert actions == [Look(None, login=True)]
    state, actions = play(state, (0.5, Looked(answer)))
    assert taken(actions) == [place]
    assert state.changes == 0


@pytest.mark.parametrize(
    ("current", "leaf", "needed"),
    [
        (None, WORKS, False),
        (None, SILENT, False),
        (Place.LEAF, WORKS, False),
        (Place.LEAF, REFUSES, True),
        (Place.HUB, WORKS, True),
        (Place.HUB, SILENT, False),
    ],
)
def test_the_hub_is_tried_only_where_that_matters(current: Place | None, leaf: Answer, needed: bool) -> None:
    assert Look(current, login=True).needs_hub(leaf) is needed


def test_a_pod_elsewhere_looks_for_a_leaf_rarely_after_the_first_minute() -> None:
    _, times, actions = looks(at(Place.HUB), Looked(REFUSES), until=600)
    assert taken(actions) == []
    assert times[:5] == [1, 3, 7, 15, 31], "the leaf of a node that has just started may come a little later"
    later = [time for time in times if time > 31]
    assert min(second - first for first, second in itertools.pairwise(later)) >= 30


def test_the_leaf_in_use_is_watched_without_a_login() -> None:
    _, times, actions = looks(at(Place.LEAF), Looked(WORKS), until=30)
    assert times == [5, 10, 15, 20, 25, 30]
    assert set(actions) == {Look(Place.LEAF, login=False)}


def test_a_leaf_that_refuses_is_left_at_once_when_the_hub_works() -> None:
    state, actions = play(at(Place.LEAF), (2, TROUBLE), (2.1, Looked(REFUSES, WORKS)))
    assert actions == [Look(Place.LEAF, login=True), Take(Place.HUB, "refuses")]
    assert state.changes == 1


@pytest.mark.parametrize("answer", [SILENT, DENIES])
def test_a_leaf_that_fails_otherwise_is_left_when_patience_is_over(answer: Answer) -> None:
    state, actions = play(at(Place.LEAF), (2, TROUBLE), (3, Looked(answer, WORKS)))
    assert taken(actions) == []
    _, times, actions = looks(state, Looked(answer, WORKS), until=20)
    assert (times[:3], taken(actions)) == ([3, 4, 5], [Place.HUB])


def test_looks_that_wait_for_long_do_not_delay_the_hub() -> None:
    silence = Looked(SILENT, WORKS)
    _, actions = play(at(Place.LEAF), (2, TROUBLE), (3.7, silence), (3.7, TICK), (5.4, silence))
    login = Look(Place.LEAF, login=True)
    assert actions == [login, login, Take(Place.HUB, "silent")]


def test_a_leaf_that_answers_again_within_the_patience_is_kept() -> None:
    events: list[tuple[float, Event]] = [
        (2, TROUBLE),
        (3, Looked(SILENT, WORKS)),
        (4, TICK),
        (4.1, Looked(WORKS)),
        (9.1, TICK),
    ]
    _, actions = play(at(Place.LEAF), *events, (10, Looked(SILENT, WORKS)))
    assert taken(actions) == []


def test_without_a_hub_the_leaf_is_kept_however_long_it_fails() -> None:
    state, times, actions = looks(at(Place.LEAF), Looked(REFUSES, SILENT), until=300)
    assert taken(actions) == []
    assert len(times) < 100
    assert taken(play(state, (301, TROUBLE), (301, Looked(REFUSES, WORKS)))[1]) == [Place.HUB]


def test_a_leaf_is_taken_again_when_it_has_been_there_for_a_while() -> None:
    state, _ = play(at(Place.LEAF), (2, TROUBLE), (2, Looked(REFUSES, WORKS)))
    state, times, actions = looks(state, Looked(WORKS, WORKS), until=60)
    assert taken(actions) == [Place.LEAF]
    [(index, _)] = [pair for pair in enumerate(actions) if isinstance(pair[1], Take)]
    assert times[0] == 7
    assert index > 3
    assert state.changes == 2


def test_a_leaf_that_comes_and_goes_does_not_drag_the_pod_along() -> None:
    state, _ = play(at(Place.LEAF), (2, TROUBLE), (2, Looked(REFUSES, WORKS)))
    everything: list[Action] = []
    for round_ in range(40):
        answer = Looked(SILENT) if round_ % 3 == 2 else Looked(WORKS, WORKS)
        now = state.wake_at
        assert now is not None
        state, actions = play(state, (now, TICK), (now, answer))
        everything += actions
    assert taken(everything) == []


def test_a_leaf_is_taken_at_once_when_the_hub_does_not_work() -> None:
    state, actions = play(at(Place.HUB), (10, TROUBLE), (10.1, Looked(WORKS, SILENT)))
    assert taken(actions) == [Place.LEAF]
    assert state.changes == 1


def test_trouble_at_the_hub_makes_it_look_sooner_but_not_often() -> None:
    state, _, _ = looks(at(Place.HUB), Looked(REFUSES), until=100)
    times, now = [], 100.0
    while now < 160:
        now += 0.1
        state, actions = play(state, (now, TROUBLE), (now, TICK))
        if actions:
            times.append(now)
            state, _ = play(state, (now, Looked(REFUSES)))
    assert 10 <= len(times) <= 13


def test_a_leaf_that_was_there_is_expected_back_for_some_minutes() -> None:
    state, _ = play(at(Place.LEAF), (2, TROUBLE), (2, Looked(REFUSES, WORKS)))
    _, times, _ = looks(state, Looked(REFUSES), until=1000)
    assert times[:3] == [7, 12, 17]
    assert times[-1] - times[-2] == TIMING.search


def test_trouble_during_a_look_is_followed_by_another_one() -> None:
    state, _ = play(at(Place.LEAF), (5, TICK), (5.1, TROUBLE), (5.2, Looked(WORKS)))
    assert state.wake_at == 5 + TIMING.retry
    assert play(state, (6.2, TICK))[1] == [Look(Place.LEAF, login=True)]


def test_a_network_that_loses_its_leafs_takes_the_hub_even_while_it_looks() -> None:
    state, actions = play(at(Place.LEAF), (5, TICK), (5.1, NONE), (5.2, Looked(WORKS)))
    assert taken(actions) == [Place.HUB]
    assert state.wake_at is None


def test_other_leaf_urls_are_looked_at_at_once() -> None:
    other = Offered(("tls://other",))
    assert play(at(Place.HUB), (5, other))[1] == [Look(Place.HUB, login=True)]
    state, actions = play(at(Place.LEAF), (5, TICK), (5.1, other), (5.2, Looked(WORKS)))
    assert taken(actions) == []
    assert state.wake_at == 5 + TIMING.retry, "the answer was about the old ones"


def test_pods_of_a_node_do_not_look_at_the_same_time() -> None:
    state, _, _ = looks(at(Place.HUB), Looked(REFUSES), until=100)
    early, late = (advance(state, Looked(REFUSES), 100, jitter, TIMING)[0].wake_at for jitter in (0.9, 0.0))
    assert early is not None
    assert late is not None
    assert 130 <= early < late <= 160
