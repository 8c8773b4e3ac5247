"""When daprd is started, given new credentials and restarted, as tables."""

from __future__ import annotations

import pytest

from sidecar.supervision import (
    LONGEST_BACKOFF,
    LOST_PATIENCE,
    RELOAD_PATIENCE,
    STEADY,
    Action,
    CredentialsChanged,
    Event,
    Observed,
    Phase,
    Signal,
    State,
    advance,
)

CHANGED = CredentialsChanged(urgent=True)
CONNECTED = Observed(frozenset({1}), reachable=True)
RECONNECTED = Observed(frozenset({2}), reachable=True)
ALONE = Observed(frozenset(), reachable=True)
OUTAGE = Observed(frozenset(), reachable=False)


def play(state: State, *events: tuple[float, Event]) -> tuple[State, list[Action]]:
    """Play events at their times; return the last state and all actions."""
    actions: list[Action] = []
    for now, event in events:
        state, more = advance(state, event, now, 0.0)
        actions += more
    return state, actions


def running() -> State:
    """daprd runs and is connected."""
    return play(State(), (0, CHANGED), (1, CONNECTED))[0]


def test_it_starts_with_the_first_credentials_and_not_before() -> None:
    assert play(State(), (0, Signal.TICK), (1, OUTAGE), (2, CHANGED))[1] == [Action.START]


def test_credentials_that_it_needs_are_loaded_and_confirmed_by_a_new_connection() -> None:
    state, actions = play(running(), (10, CHANGED), (12, CONNECTED), (14, RECONNECTED), (60, RECONNECTED))
    assert actions == [Action.RELOAD]
    assert state.phase is Phase.RUNNING


def test_credentials_that_can_wait_do_not_disturb_it() -> None:
    assert play(running(), (10, CredentialsChanged(urgent=False)))[1] == []


def test_it_is_restarted_gracefully_when_it_does_not_load_the_component() -> None:
    state, actions = play(running(), (10, CHANGED), (11, CONNECTED), (10 + RELOAD_PATIENCE, CONNECTED))
    assert actions == [Action.RELOAD, Action.TERMINATE]
    state, actions = play(state, (30, Signal.EXITED))
    assert actions == [Action.START]
    assert (state.phase, state.restarts) == (Phase.RUNNING, 1)


def test_a_reload_during_an_outage_waits_for_the_end_of_the_outage() -> None:
    assert play(running(), (10, CHANGED), (10 + RELOAD_PATIENCE, OUTAGE), (99, OUTAGE))[1] == [Action.RELOAD]


def test_an_outage_of_nats_is_left_to_daprd() -> None:
    events = [(float(now), OUTAGE) for now in range(2, 600, 2)]
    assert play(running(), *events)[1] == []


def test_a_connection_that_stays_away_while_nats_is_there_is_mended_step_by_step() -> None:
    state, actions = play(running(), (10, ALONE), (11, ALONE))
    assert actions == []
    state, actions = play(state, (10 + LOST_PATIENCE, ALONE))
    assert actions == [Action.RENEW]
    state, actions = play(state, (10 + 2 * LOST_PATIENCE, ALONE))
    assert actions == [Action.RELOAD]
    state, actions = play(state, (10 + 2 * LOST_PATIENCE + RELOAD_PATIENCE, ALONE))
    assert actions == [Action.TERMINATE]


def test_new_credentials_are_loaded_at_once_while_the_connection_is_lost() -> None:
    events = [(10.0, ALONE), (10 + LOST_PATIENCE, ALONE), (17.0, CredentialsChanged(urgent=False))]
    assert play(running(), *events)[1] == [Action.RENEW, Action.RELOAD]


def test_a_connection_that_comes_back_by_itself_is_left_alone() -> None:
    assert play(running(), (10, ALONE), (12, RECONNECTED), (30, ALONE), (32, CONNECTED))[1] == []


def test_after_crashes_it_starts_again_later_and_later() -> None:
    state, delays = running(), []
    now = 1.0
    for _ in range(9):
        state, _ = play(state, (now, Signal.EXITED))
        assert state.wake_at is not None
        delays.append(state.wake_at - now)
        assert play(state, (state.wake_at - 0.1, Signal.TICK))[1] == []
        now = state.wake_at
        state, actions = play(state, (now, Signal.TICK))
        assert actions == [Action.START]
    assert delays[:4] == [0.5, 1, 2, 4]
    assert delays[-1] == LONGEST_BACKOFF
    state, _ = play(state, (now + STEADY, Signal.EXITED))
    assert state.wake_at == now + STEADY + 0.5


@pytest.mark.parametrize("event", [CHANGED, ALONE, CONNECTED])
def test_while_it_waits_to_be_started_only_time_matters(event: Event) -> None:
    waiting, _ = play(running(), (5, Signal.EXITED))
    assert play(waiting, (5.1, event)) == (waiting, [])


def test_stop_ends_it_for_good() -> None:
    state, actions = play(running(), (5, Signal.STOP), (6, Signal.EXITED), (7, CHANGED), (99, Signal.TICK))
    assert actions == [Action.TERMINATE]
    assert state.phase is Phase.STOPPING
