"""Performs what `session` and `supervision` decide: one thread decides, one talks to Vault, a third answers probes.

The deciding thread never waits for the network, so that SIGTERM and the end of daprd are always seen at once.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from edgefarm import __version__
from edgefarm.errors import InvalidCredential
from sidecar import connections, metrics, session, supervision
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials
from sidecar.health import Page
from sidecar.log import Log
from sidecar.settings import Settings
from sidecar.steps import Steps
from sidecar.store import CredentialStore
from sidecar.vault import VaultClient

if TYPE_CHECKING:  # mode nats does without it
    from sidecar.dapr import Daprd

#: Seconds between two looks at daprd's connections.
OBSERVE_EVERY: Final = 2.0
#: Consumers begin so many seconds before the component is loaded: Dapr delivers at least once, not at most once.
OVERLAP: Final = 15
#: The longest wait for an event; also how late a clock that was set back is noticed.
_LONGEST_WAIT: Final = 30.0

_Event = session.Event | supervision.Event


class Runner:
    """One run of the sidecar; `daprd` is None in mode `nats`. `once`: it ends as soon as there are credentials."""

    def __init__(
        self,
        settings: Settings,
        vault: VaultClient,
        store: CredentialStore,
        daprd: Daprd | None,
        log: Log,
        *,
        once: bool = False,
    ) -> None:
        self._settings = settings
        self._once = once
        self._steps = Steps(settings, vault, store)
        self._store = store
        self._daprd = daprd
        self._log = log
        self._timing = session.Timing(settings.refresh_seconds, settings.grant_retry_seconds)
        self._session = session.State()
        self._supervision = supervision.State()
        self._inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], _Event], _Event]] = queue.SimpleQueue()
        self._observing = False
        self._observe_at = 0.0
        self._failures: Counter[str] = Counter()

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status (1: ended before it had what it was to get once)."""
        self._prepare()
        threading.Thread(target=self._work, name="vault", daemon=True).start()
        self._to_session(session.Started(self._load()))
        gc.freeze()  # what is alive now stays alive: later collections need not look at it (or touch its pages)
        while self._session.phase is not session.Phase.STOPPED:
            if self._once and self._readiness()[0]:
                return 0
            self._next()
        self._stop_daprd()
        self._log.info("stopped")
        return 1 if self._once else 0

    def page(self, path: str) -> Page | None:
        """A page of the health port; called by its threads."""
        if path == "/healthz":
            return Page(200, "ok\n")
        if path == "/readyz":
            ready, sentence = self._readiness()
            return Page(200 if ready else 503, f"{sentence}\n")
        if path == "/metrics":
            return Page(200, metrics.render(self._figures()), metrics.CONTENT_TYPE)
        return None

    def _prepare(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        if self._settings.ca_bundle is not None:
            self._store.save_ca(self._settings.ca_bundle)
        if self._daprd is not None:
            signal.signal(signal.SIGCHLD, self._on_child)
            self._daprd.prepare()

    def _load(self) -> Credentials | None:
        try:
            return self._store.load()
        except InvalidCredential as error:
            self._log.warning(str(error))
            return None

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(session.Signal.STOP)

    def _on_child(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(supervision.Signal.EXITED)

    def _next(self) -> None:
        try:
            event = self._inbox.get(timeout=self._patience())
        except queue.Empty:
            self._to_session(session.Signal.TICK)
            self._to_supervision(supervision.Signal.TICK)
            self._observe()
            return
        if event is supervision.Signal.EXITED:
            self._child_changed()
        elif isinstance(event, supervision.Event):
            self._to_supervision(event)
        else:
            self._to_session(event)

    def _patience(self) -> float:
        times = [self._session.next_at] if self._session.phase is session.Phase.IDLE else []
        if self._supervision.wake_at is not None:
            times.append(self._supervision.wake_at)
        if self._supervision.phase is supervision.Phase.RUNNING and not self._observing:
            times.append(self._observe_at)
        # A little late rather than early: a Tick before its time would only be sent again.
        return min(_LONGEST_WAIT, max(0.0, min(times) - time.time()) + 0.001) if times else _LONGEST_WAIT

    def _to_session(self, event: session.Event) -> None:
        before = self._session
        moment = session.Moment(time.time(), _jitter(), self._timing)
        self._session, actions = session.advance(before, event, moment)
        self._report(event, before)
        for action in actions:
            self._perform(action)

    def _to_supervision(self, event: supervision.Event) -> None:
        if self._daprd is None:
            return
        if isinstance(event, supervision.Observed):
            self._observing = False
        now, jitter = time.time(), _jitter()
        self._supervision, actions = supervision.advance(self._supervision, event, now, jitter)
        for action in actions:
            self._handle_daprd(self._daprd, action)

    def _child_changed(self) -> None:
        status = self._daprd.exit_status() if self._daprd is not None else None
        by_itself = self._supervision.phase is supervision.Phase.RUNNING
        if status == 0 and by_itself and self._settings.dapr.shutdown_ends:
            self._log.info("the application has shut Dapr down: ending")
            self._to_session(session.Signal.STOP)
        elif status is not None:  # else it only stopped or went on
            self._log.warning("daprd ended", status=status)
            self._to_supervision(supervision.Signal.EXITED)

    def _report(self, event: session.Event, before: session.State) -> None:
        if isinstance(event, session.Failed):
            self._failures[event.kind.value] += 1
            if self._session.problem is event:
                self._log.problem(event.message, kind=event.kind.value)
        elif before.problem is not None and self._session.problem is None:
            self._log.recovered("the problem is over")
        if event is session.Signal.WRITTEN and (held := self._session.held) is not None:
            self._log.info(
                "credentials written",
                policy=held.access.policy,
                key_version=held.access.key_version,
                expires_at=held.expires_at,
                renew_at=round(self._session.renew_at),
            )

    # ── actions of the session ──────────────────────────────────────────────────────────────────────────────────────

    def _perform(self, action: session.Action) -> None:
        match action:
            case session.Apply(renewed):
                loaded = self._daprd.loaded if self._daprd is not None else None
                urgent = loaded is None or loaded.outlived_by(renewed, self._session.renew_at)
                self._to_supervision(supervision.CredentialsChanged(urgent))
            case session.Request.LOGIN:
                self._step(self._steps.login)
            case session.Request.READ_ACCESS:
                self._step(self._steps.read_access)
            case session.Sign(access):
                self._step(lambda: self._steps.sign(access))
            case session.Write(pending):
                self._step(lambda: self._steps.write(pending))

    def _step(self, job: Callable[[], session.Event]) -> None:
        self._jobs.put((job, session.Failed(session.Failure.INVALID, "unexpected failure, see the log")))

    def _work(self) -> None:
        while True:
            job, otherwise = self._jobs.get()
            try:
                event = job()
            except Exception as error:  # noqa: BLE001 - the worker's boundary: a bug must not end renewal for ever
                self._log.failure("unexpected failure", error=repr(error))
                event = otherwise
            self._inbox.put(event)

    # ── daprd ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _handle_daprd(self, daprd: Daprd, action: supervision.Action) -> None:
        held = self._session.held
        assert held is not None  # daprd is not thought of before there are credentials
        match action:
            case supervision.Action.TERMINATE:
                daprd.send(signal.SIGTERM)
            case supervision.Action.RENEW:
                self._log.warning("daprd has lost its connection to NATS: getting new credentials")
                self._to_session(session.Signal.REFUSED)
            case supervision.Action.RELOAD:
                self._log.info("daprd loads the component again")
                self._load_component(daprd, held)
            case supervision.Action.START:
                self._observe_at = time.time() + OBSERVE_EVERY
                self._start(daprd, held)

    def _load_component(self, daprd: Daprd, held: Credentials) -> None:
        try:
            daprd.load(held, since=int(time.time()) - OVERLAP)
        except OSError as error:  # daprd gets no new connection then, and is restarted
            self._log.problem(f"the Dapr component cannot be written: {error}")

    def _start(self, daprd: Daprd, held: Credentials) -> None:
        try:
            daprd.load(held, since=int(time.time()) - OVERLAP)
            daprd.start()
        except OSError as error:
            self._log.problem(f"daprd cannot be started: {error} (EDGEFARM_DAPRD names the program)")
            self._to_supervision(supervision.Signal.EXITED)

    def _observe(self) -> None:
        daprd, held = self._daprd, self._session.held
        if daprd is None or held is None or daprd.pid is None or self._observing or time.time() < self._observe_at:
            return
        self._observing = True
        self._observe_at = time.time() + OBSERVE_EVERY
        pid = daprd.pid
        self._jobs.put((lambda: _look(pid, held.access), supervision.Observed(frozenset(), reachable=False)))

    def _stop_daprd(self) -> None:
        if self._daprd is None:
            return
        self._to_supervision(supervision.Signal.STOP)
        deadline = time.monotonic() + self._settings.dapr.shutdown_seconds + 2
        while self._daprd.pid is not None and self._daprd.exit_status() is None:
            if time.monotonic() > deadline:
                self._log.warning("daprd did not end in time")
                self._daprd.send(signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.02)

    # ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _readiness(self) -> tuple[bool, str]:
        ready, sentence = self._session.readiness(time.time())
        if ready and self._daprd is not None and not self._daprd.healthy():
            return False, "waiting for daprd"
        return ready, sentence

    def _figures(self) -> metrics.Figures:
        held = self._session.held
        return metrics.Figures(
            version=__version__,
            mode=self._settings.mode,
            network=self._settings.pod.network,
            renewals=self._session.renewals,
            failures=dict(self._failures),
            expires_at=held.expires_at if held is not None else None,
            ready=self._readiness()[0],
            daprd_restarts=self._supervision.restarts,
        )


def _jitter() -> float:
    # Not the random module: it loads hash functions that nothing else here needs.
    return int.from_bytes(os.urandom(4)) / 2**32


def _look(pid: int, access: AccessDocument) -> _Event:
    urls = access.leaf + access.hub
    found = connections.established(pid, urls)
    return supervision.Observed(found, bool(found) or any(connections.reachable(url) for url in urls))
