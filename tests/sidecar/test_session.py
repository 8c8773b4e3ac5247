"""The session as tables: state and event in, state and actions out. No clock, no Vault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.session import (
    LONGEST_BACKOFF,
    AccessRead,
    Action,
    Apply,
    Event,
    Failed,
    Failure,
    LoggedIn,
    Moment,
    Phase,
    Request,
    Sign,
    Signal,
    Signed,
    Started,
    State,
    Timing,
    Write,
    advance,
)
from tests.sidecar.values import ACCESS, held

TIMING = Timing(refresh=30, grant_retry=2)
DENIED = Failed(Failure.DENIED, "no Policy names you")
UNAVAILABLE = Failed(Failure.UNAVAILABLE, "Vault cannot be reached")


def play(state: State, *events: tuple[float, Event], jitter: float = 0.0) -> tuple[State, list[Action]]:
    """Play events at their times; return the last state and all actions."""
    actions: list[Action] = []
    for now, event in events:
        state, more = advance(state, event, Moment(now, jitter, TIMING))
        actions += more
    return state, actions


def settled(now: float = 0) -> State:
    """A session that has just got credentials."""
    state, _ = play(
        State(),
        (now, Started(None)),
        (now, LoggedIn(600)),
        (now, AccessRead(ACCESS)),
        (now, Signed(held(int(now)))),
        (now, Signal.WRITTEN),
    )
    return state


def test_a_first_round_logs_in_reads_signs_writes_and_hands_over_once_it_is_on_disk() -> None:
    state, actions = play(
        State(),
        (0, Started(None)),
        (0, LoggedIn(600)),
        (0, AccessRead(ACCESS)),
        (0, Signed(held())),
    )
    assert actions == [Request.LOGIN, Request.READ_ACCESS, Sign(ACCESS), Write(held())]
    assert state.readiness(0) == (False, "waiting for the first credentials")
    state, actions = play(state, (0, Signal.WRITTEN))
    assert actions == [Apply(held())]
    assert state.readiness(0) == (True, "credentials are in place")
    assert (state.phase, state.next_at, state.renew_at) == (Phase.IDLE, 30, 3600)


def test_credentials_of_an_earlier_run_serve_at_once_and_are_renewed_in_the_background() -> None:
    state, actions = play(State(), (100, Started(held())))
    assert actions == [Apply(held()), Request.LOGIN]
    assert state.readiness(100)[0]
    _, actions = play(state, (100, LoggedIn(600)), (100, AccessRead(ACCESS)))
    assert actions == [Request.READ_ACCESS, Sign(ACCESS)]


def test_credentials_that_have_expired_meanwhile_are_not_used() -> None:
    state, actions = play(State(), (86_400, Started(held())))
    assert actions == [Request.LOGIN]
    assert state.held is None


def test_between_renewals_only_the_document_is_read_with_the_token_at_hand() -> None:
    state, actions = play(settled(), (29, Signal.TICK), (30, Signal.TICK), (30, AccessRead(ACCESS)))
    assert actions == [Request.READ_ACCESS]
    assert (state.phase, state.next_at) == (Phase.IDLE, 60)


def test_an_old_vault_token_is_replaced_before_its_lease_ends() -> None:
    _, actions = play(settled(), (481, Signal.TICK))
    assert actions == [Request.LOGIN]


@pytest.mark.parametrize(
    "changed",
    [
        replace(ACCESS, signing_key="AKEY2", key_version=2),
        replace(ACCESS, account="AOTHER"),
        replace(ACCESS, hub=("tls://elsewhere:4222",)),
        replace(ACCESS, leaf=("tls://leaf:4222",)),
    ],
    ids=["key", "account", "hub", "leaf"],
)
def test_a_change_in_the_document_renews_at_once(changed: object) -> None:
    assert isinstance(changed, type(ACCESS))
    _, actions = play(settled(), (30, Signal.TICK), (30, AccessRead(changed)))
    assert actions == [Request.READ_ACCESS, Sign(changed)]


@pytest.mark.parametrize(
    ("renew_every", "lifetime", "jitter", "expected"),
    [
        (3600, 86_400, 0.0, 3600),
        (3600, 86_400, 1.0, 3240),
        (80_000, 90_000, 0.0, 60_000),
        (90_000, 90_000, 1.0, 60_000),
    ],
)
def test_renewal_comes_when_the_document_says_but_never_after_two_thirds_of_the_lifetime(
    renew_every: int, lifetime: int, jitter: float, expected: float
) -> None:
    access = replace(ACCESS, renew_every_seconds=renew_every, lifetime_seconds=lifetime)
    state, _ = play(State(), (0, Started(held(access=access))), jitter=jitter)
    assert state.renew_at == pytest.approx(expected)


def test_at_the_time_of_renewal_new_credentials_are_signed() -> None:
    state = replace(settled(), next_at=3600)
    _, actions = play(state, (3600, Signal.TICK), (3600, LoggedIn(600)), (3600, AccessRead(ACCESS)))
    assert actions == [Request.LOGIN, Request.READ_ACCESS, Sign(ACCESS)]


def test_an_outage_of_vault_leaves_the_pod_ready_until_its_credentials_expire() -> None:
    state, _ = play(settled(), (30, Signal.TICK), (30, UNAVAILABLE))
    assert state.readiness(30)[0]
    assert state.readiness(86_399)[0]
    ready, sentence = state.readiness(86_400)
    assert not ready
    assert sentence.startswith("the credentials of this pod ended on 1970-01-02T00:00:00Z, and no server accepts it")
    assert sentence.endswith(f"which fails: {UNAVAILABLE.message}")


def test_credentials_that_had_ended_before_the_start_are_said_to_have_ended() -> None:
    state, actions = play(State(), (86_400, Started(held())))
    assert actions == [Request.LOGIN]
    ended = "the credentials of this pod ended on 1970-01-02T00:00:00Z, and no server accepts it until they are renewed"
    assert state.readiness(86_400) == (False, ended)
    state, _ = play(state, (86_400, UNAVAILABLE))
    assert state.readiness(86_400) == (False, f"{ended}, which fails: {UNAVAILABLE.message}")
    renewed = held(issued_at=90_000)
    state, _ = play(
        replace(state, next_at=0),
        *((90_000, event) for event in (Signal.TICK, LoggedIn(600), AccessRead(ACCESS), Signed(renewed))),
        (90_000, Signal.WRITTEN),
    )
    assert state.ended_at(90_001) is None
    assert state.readiness(90_001)[0]


def test_attempts_grow_further_apart_up_to_a_bound_and_jitter_makes_them_earlier() -> None:
    state, delays = State(), []
    state, _ = play(state, (0, Started(None)))
    for _ in range(10):
        state, _ = play(state, (0, UNAVAILABLE))
        delays.append(state.next_at)
        state, _ = play(replace(state, next_at=0), (0, Signal.TICK))
    assert delays == [0.5, 1, 2, 4, 8, 16, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF, LONGEST_BACKOFF]
    state, _ = play(state, (0, UNAVAILABLE), jitter=0.99)
    assert LONGEST_BACKOFF / 2 < state.next_at < LONGEST_BACKOFF * 0.51


def test_a_missing_grant_is_asked_for_often_and_makes_the_pod_not_ready() -> None:
    state, _ = play(State(), (0, Started(None)))
    for _ in range(6):
        state, _ = play(state, (0, DENIED))
        assert state.next_at <= TIMING.grant_retry
        state, _ = play(replace(state, next_at=0), (0, Signal.TICK))
    assert state.readiness(0) == (False, DENIED.message)


def test_a_refusal_counts_only_with_a_new_token() -> None:
    state, actions = play(settled(), (30, Signal.TICK), (30, DENIED))
    assert actions == [Request.READ_ACCESS, Request.LOGIN]
    assert state.readiness(30)[0], "the old token may be all that is wrong"
    state, actions = play(state, (30, LoggedIn(600)), (30, DENIED))
    assert actions == [Request.READ_ACCESS]
    assert state.readiness(30) == (False, DENIED.message)


def test_a_grant_that_comes_back_is_followed_by_new_credentials_even_with_the_same_key() -> None:
    state, _ = play(settled(), (500, Signal.TICK), (500, DENIED))
    assert state.held is not None, "what may still be good for something is kept"
    state, actions = play(state, (502, Signal.TICK), (502, LoggedIn(600)), (502, AccessRead(ACCESS)))
    assert actions == [Request.LOGIN, Request.READ_ACCESS, Sign(ACCESS)]
    state, _ = play(state, (502, Signed(held(502))), (502, Signal.WRITTEN))
    assert state.readiness(502)[0]
    assert state.attempts == 0


def test_an_outage_does_not_make_a_refusal_forgotten() -> None:
    state, _ = play(settled(), (500, Signal.TICK), (500, DENIED), (502, Signal.TICK), (502, UNAVAILABLE))
    assert state.readiness(502) == (False, DENIED.message)
    _, actions = play(state, (510, Signal.TICK), (510, LoggedIn(600)), (510, AccessRead(ACCESS)))
    assert actions[-1] == Sign(ACCESS)


def test_a_failed_write_keeps_what_was_held_and_tries_again() -> None:
    state = replace(settled(), next_at=0, wanted=True)
    state, _ = play(state, (30, Signal.TICK), (30, AccessRead(ACCESS)), (30, Signed(held(30))))
    state, actions = play(state, (30, Failed(Failure.INVALID, "no space left on device")))
    assert actions == []
    assert (state.held, state.pending, state.wanted) == (held(0), None, True)


def test_refused_credentials_are_renewed_at_once_but_not_faster_than_the_back_off() -> None:
    state, actions = play(settled(), (5, Signal.REFUSED), (5, Signal.TICK), (5, AccessRead(ACCESS)))
    assert actions == [Request.READ_ACCESS, Sign(ACCESS)]
    state, _ = play(state, (5, UNAVAILABLE))
    state, actions = play(state, (5.1, Signal.REFUSED), (5.1, Signal.TICK))
    assert actions == []


def test_a_clock_that_was_set_back_does_not_stop_the_session() -> None:
    _, actions = play(settled(now=1_000_000), (5, Signal.TICK))
    assert actions == [Request.READ_ACCESS]


@pytest.mark.parametrize("phase", list(Phase))
def test_after_stop_nothing_happens_any_more(phase: Phase) -> None:
    state, actions = play(
        replace(State(), phase=phase), (0, Signal.STOP), (0, Signal.TICK), (0, Signal.WRITTEN), (0, UNAVAILABLE)
    )
    assert (state.phase, actions) == (Phase.STOPPED, [])


@pytest.mark.parametrize("phase", [Phase.LOGIN, Phase.READ, Phase.SIGN, Phase.WRITE])
def test_time_alone_changes_nothing_during_a_round(phase: Phase) -> None:
    state = replace(State(), phase=phase)
    assert play(state, (1e9, Signal.TICK)) == (state, [])


@pytest.mark.parametrize(
    ("phase", "event"),
    [
        (Phase.IDLE, Signal.WRITTEN),
        (Phase.LOGIN, AccessRead(ACCESS)),
        (Phase.READ, LoggedIn(1)),
        (Phase.SIGN, Started(None)),
    ],
)
def test_an_event_that_cannot_happen_is_an_error(phase: Phase, event: Event) -> None:
    with pytest.raises(ValueError, match="cannot happen in phase"):
        play(replace(State(), phase=phase), (0, event))
