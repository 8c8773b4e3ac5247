"""Performs what `session` decides and brings the parts together: one thread decides, one talks to Vault, others serve.

The deciding thread never waits for the network, so that SIGTERM and the end of daprd are always seen at once. It also
runs `supervisor` (daprd) and `router` (leaf or hub), each of which has a state machine of its own.
"""

from __future__ import annotations

import gc
import queue
import signal
import time
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

from edgefarm import __version__
from edgefarm.errors import InvalidCredential
from sidecar import metrics, route, router, session, supervision
from sidecar.credentials import Credentials
from sidecar.health import Page
from sidecar.keeper import Keeper, Worker
from sidecar.log import Log
from sidecar.router import Router
from sidecar.settings import Settings
from sidecar.steps import Steps
from sidecar.store import CredentialStore
from sidecar.vault import VaultClient

if TYPE_CHECKING:  # no mode needs all of them
    from sidecar.dapr import Daprd
    from sidecar.relay import Relay
    from sidecar.supervisor import Supervisor

#: The longest wait for an event; also how late a clock that was set back is noticed.
_LONGEST_WAIT: Final = 30.0
#: Seconds in which applications may finish their connections through the relay after SIGTERM.
_RELAY_PATIENCE: Final = 5.0

_Event = session.Event | supervision.Event | router.Event


@dataclass(frozen=True)
class Services:
    """What the pod gets beside credentials: daprd, the relay, or neither."""

    daprd: Daprd | None = None
    relay: Relay | None = None


class Runner:
    """One run of the sidecar. `once`: it ends as soon as there are credentials."""

    def __init__(
        self,
        settings: Settings,
        vault: VaultClient,
        store: CredentialStore,
        services: Services,
        log: Log,
        *,
        once: bool = False,
    ) -> None:
        self._settings = settings
        self._once = once
        self._store = store
        self._log = log
        self._inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._worker: Worker[_Event] = Worker(self._inbox.put, log)
        timing = session.Timing(settings.refresh_seconds, settings.grant_retry_seconds)
        self._keeper = Keeper(Steps(settings, vault, store), timing, self._worker.submit, self._apply, log)
        self._supervisor = self._make_supervisor(services.daprd)
        used = services != Services()
        self._router = Router(settings, services.relay, self._inbox.put, log) if used else None

    def _make_supervisor(self, daprd: Daprd | None) -> Supervisor | None:
        if daprd is None:
            return None
        from sidecar.supervisor import Supervisor

        return Supervisor(daprd, self._settings.dapr, self._worker.submit, self._refused, self._log)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status (1: ended before it had what it was to get once)."""
        self._prepare()
        self._worker.start()
        self._keeper.handle(session.Started(self._load()))
        gc.freeze()  # what is alive now stays alive: later collections need not look at it (or touch its pages)
        while not self._keeper.stopped:
            if self._once and self._readiness()[0]:
                return 0
            self._next()
        if self._supervisor is not None:
            self._supervisor.stop()
        if self._router is not None:
            self._router.stop(_RELAY_PATIENCE)
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
        if self._supervisor is not None:
            signal.signal(signal.SIGCHLD, self._on_child)
            self._supervisor.prepare()
        if self._router is not None:
            self._router.start()

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
            self._tick()
            return
        if event is supervision.Signal.EXITED:
            self._child_changed()
        elif isinstance(event, supervision.Event):
            self._to_supervisor(event)
        elif isinstance(event, router.Event):
            self._to_router(event)
        else:
            self._keeper.handle(event)

    def _tick(self) -> None:
        self._keeper.handle(session.Signal.TICK)
        self._to_router(route.Signal.TICK)
        if self._supervisor is not None:
            self._supervisor.tick()

    def _patience(self) -> float:
        times = [self._keeper.due_at] if self._keeper.due_at is not None else []
        if self._supervisor is not None and (due_at := self._supervisor.due_at) is not None:
            times.append(due_at)
        waits = [_LONGEST_WAIT, *(max(0.0, moment - time.time()) for moment in times)]
        if self._router is not None and (wait := self._router.wait) is not None:
            waits.append(wait)
        # A little late rather than early: a Tick before its time would only be sent again.
        return min(waits) + 0.001

    def _to_supervisor(self, event: supervision.Event) -> None:
        assert self._supervisor is not None  # its events come from it alone
        if isinstance(event, supervision.Observed) and not event.connections:
            self._to_router(route.Signal.TROUBLE)
        self._supervisor.handle(event)

    def _to_router(self, event: router.Event) -> None:
        if self._router is None:
            return
        before = self._router.upstream
        self._router.handle(event)
        if self._router.upstream != before:
            self._give_daprd()

    def _child_changed(self) -> None:
        if self._supervisor is not None and self._supervisor.child_changed():
            self._log.info("the application has shut Dapr down: ending")
            self._keeper.handle(session.Signal.STOP)

    def _refused(self) -> None:
        self._keeper.handle(session.Signal.REFUSED)

    # ── what follows from new credentials ───────────────────────────────────────────────────────────────────────────

    def _apply(self, renewed: Credentials) -> None:
        self._save_ca(renewed.access.leaf_ca)
        if self._router is not None:
            self._router.credentials_changed(renewed)
            self._give_daprd()

    def _give_daprd(self) -> None:
        """Credentials or route are new: daprd may need them."""
        held, upstream = self._keeper.state.held, self._router.upstream if self._router is not None else None
        if self._supervisor is not None and held is not None and upstream is not None:
            self._supervisor.use(held, upstream, self._keeper.state.renew_at)

    def _save_ca(self, leaf_ca: str | None) -> None:
        """Write what applications verify NATS against, if that is not the system's roots."""
        if self._settings.ca_bundle is None:
            return
        try:
            self._store.save_ca("\n".join(filter(None, (self._settings.ca_bundle, leaf_ca))))
        except OSError as error:
            self._log.problem(f"the CA cannot be written: {error}", topic="ca")

    # ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _readiness(self) -> tuple[bool, str]:
        ready, sentence = self._keeper.state.readiness(time.time())
        if not ready:
            return False, sentence
        if self._supervisor is not None and not self._supervisor.healthy():
            return False, "waiting for daprd"
        return True, sentence if self._router is None else f"{sentence}; {self._router.sentence()}"

    def _figures(self) -> metrics.Figures:
        held = self._keeper.state.held
        upstream = self._router.upstream if self._router is not None else None
        return metrics.Figures(
            version=__version__,
            mode=self._settings.mode,
            network=self._settings.pod.network,
            renewals=self._keeper.state.renewals,
            failures=dict(self._keeper.failures),
            expires_at=held.expires_at if held is not None else None,
            ready=self._readiness()[0],
            daprd_restarts=self._supervisor.restarts if self._supervisor is not None else 0,
            route=upstream.place.value if upstream is not None else None,
            route_changes=self._router.changes if self._router is not None else 0,
        )
