"""Performs what `supervision` decides: starts daprd, gives it credentials and route, looks at it, ends it.

For the thread that started it: the kernel ends daprd together with that one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar import connections, supervision
from sidecar.credentials import Credentials
from sidecar.log import Log
from sidecar.settings import DaprSettings
from sidecar.upstream import Upstream

if TYPE_CHECKING:  # brings what only mode dapr needs
    from sidecar.dapr import Daprd

#: Seconds between two looks at daprd's connections.
OBSERVE_EVERY: Final = 2.0
#: Consumers begin so many seconds before the component is loaded: Dapr delivers at least once, not at most once.
OVERLAP: Final = 15
#: Seconds beyond its own patience that daprd may take to end.
_GRACE: Final = 2.0

#: Has a job done in another thread; its answer comes back as an event.
Submit = Callable[[Callable[[], supervision.Event], supervision.Event], None]


class Supervisor:
    """The life of the one daprd; `refused` is called when new credentials are what may help."""

    def __init__(
        self, daprd: Daprd, settings: DaprSettings, submit: Submit, refused: Callable[[], None], log: Log
    ) -> None:
        self._daprd = daprd
        self._settings = settings
        self._submit = submit
        self._refused = refused
        self._log = log
        self._state = supervision.State()
        self._held: Credentials | None = None
        self._upstream: Upstream | None = None
        self._observing = False
        self._observe_at = 0.0

    def prepare(self) -> None:
        """Write what does not change."""
        self._daprd.prepare()

    def use(self, held: Credentials, upstream: Upstream, next_renewal: float) -> None:
        """These are the credentials and the route now; daprd gets them when it needs them."""
        loaded = self._daprd.loaded
        urgent = loaded is None or self._upstream != upstream or loaded.outlived_by(held, next_renewal)
        self._held, self._upstream = held, upstream
        self.handle(supervision.CredentialsChanged(urgent, distrusts=not self._daprd.trusts(held.access, upstream)))

    def handle(self, event: supervision.Event) -> None:
        """Take note of an event."""
        if isinstance(event, supervision.Observed):
            self._observing = False
        jitter = int.from_bytes(os.urandom(4)) / 2**32
        self._state, actions = supervision.advance(self._state, event, time.time(), jitter)
        for action in actions:
            self._perform(action)

    def child_changed(self) -> bool:
        """daprd has ended, stopped or gone on; return whether it ended because the application had it end."""
        status = self._daprd.exit_status()
        if status is None:  # it only stopped or went on
            return False
        if status == 0 and self._state.phase is supervision.Phase.RUNNING and self._settings.shutdown_ends:
            return True
        self._log.warning("daprd ended", status=status)
        self.handle(supervision.Signal.EXITED)
        return False

    @property
    def due_at(self) -> float | None:
        """When `tick` has something to do; Unix seconds."""
        times = [] if self._state.wake_at is None else [self._state.wake_at]
        if self._state.phase is supervision.Phase.RUNNING and not self._observing:
            times.append(self._observe_at)
        return min(times, default=None)

    def tick(self) -> None:
        """Time has passed."""
        self.handle(supervision.Signal.TICK)
        pid, held, upstream = self._daprd.pid, self._held, self._upstream
        if pid is None or held is None or upstream is None or self._observing or time.time() < self._observe_at:
            return
        self._observing = True
        self._observe_at = time.time() + OBSERVE_EVERY
        urls = held.access.leaf + held.access.hub
        self._submit(lambda: _observe(pid, urls, upstream), supervision.Observed(frozenset(), reachable=False))

    def healthy(self) -> bool:
        """Whether daprd serves the application; for any thread."""
        return self._daprd.healthy()

    @property
    def restarts(self) -> int:
        """Times daprd was started again."""
        return self._state.restarts

    def stop(self) -> None:
        """End daprd and wait until it has ended."""
        self.handle(supervision.Signal.STOP)
        deadline = time.monotonic() + self._settings.shutdown_seconds + _GRACE
        while self._daprd.pid is not None and self._daprd.exit_status() is None:
            if time.monotonic() > deadline:
                self._log.warning("daprd did not end in time")
                self._daprd.send(signal.SIGKILL)
                deadline = float("inf")
            time.sleep(0.02)

    def _perform(self, action: supervision.Action) -> None:
        match action:
            case supervision.Action.TERMINATE:
                self._daprd.send(signal.SIGTERM)
            case supervision.Action.RENEW:
                self._log.warning("daprd has lost its connection to NATS: getting new credentials")
                self._refused()
            case supervision.Action.RELOAD:
                self._log.info("daprd loads the component again")
                self._load()
            case supervision.Action.START:
                self._observe_at = time.time() + OBSERVE_EVERY
                self._start()

    def _load(self) -> None:
        try:
            self._write()
        except OSError as error:  # daprd gets no new connection then, and is restarted
            self._log.problem(f"the Dapr component cannot be written: {error}", topic="daprd")

    def _start(self) -> None:
        try:
            self._write()
            self._daprd.start()
        except OSError as error:
            self._log.problem(f"daprd cannot be started: {error} (EDGEFARM_DAPRD names the program)", topic="daprd")
            self.handle(supervision.Signal.EXITED)

    def _write(self) -> None:
        assert self._held is not None  # daprd is not thought of before there are credentials and a route
        assert self._upstream is not None
        self._daprd.load(self._held, self._upstream.urls, since=int(time.time()) - OVERLAP)


def _observe(pid: int, urls: tuple[str, ...], upstream: Upstream) -> supervision.Event:
    found = connections.established(pid, urls)
    return supervision.Observed(found, bool(found) or any(map(connections.reachable, upstream.urls)))
