"""Drives `session`: has its steps done by the thread that may wait, reports what comes of them, counts failures.

It is used by one thread, that which decides; only `Worker` has another.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from sidecar import session
from sidecar.credentials import Credentials
from sidecar.log import Log
from sidecar.steps import Steps

E = TypeVar("E")


class Worker(Generic[E]):
    """Does jobs that wait for the network or the disk, one after the other; what comes of them goes to the inbox."""

    def __init__(self, inbox: Callable[[E], None], log: Log) -> None:
        self._inbox = inbox
        self._log = log
        self._jobs: queue.SimpleQueue[tuple[Callable[[], E], E]] = queue.SimpleQueue()

    def start(self) -> None:
        """From now on; it ends with the process."""
        threading.Thread(target=self._work, name="vault", daemon=True).start()

    def submit(self, job: Callable[[], E], otherwise: E) -> None:
        """Have a job done; `otherwise` is its answer when it fails for a bug of ours."""
        self._jobs.put((job, otherwise))

    def _work(self) -> None:
        while True:
            job, otherwise = self._jobs.get()
            try:
                event = job()
            except Exception as error:  # noqa: BLE001 - the worker's boundary: a bug must not end renewal for ever
                self._log.failure("unexpected failure", error=repr(error))
                event = otherwise
            self._inbox(event)


class Keeper:
    """The session of one pod. `submit` has a job done, `apply` is told of credentials that are in force from now on."""

    #: What the log calls whom the credentials are for.
    label = "policy"

    def __init__(
        self,
        steps: Steps,
        timing: session.Timing,
        submit: Callable[[Callable[[], session.Event], session.Event], None],
        apply: Callable[[Credentials], None],
        log: Log,
    ) -> None:
        self._steps = steps
        self._timing = timing
        self._submit = submit
        self._apply = apply
        self._log = log
        self.state = session.State()
        self.failures: Counter[str] = Counter()

    @property
    def stopped(self) -> bool:
        """Whether the process is to end."""
        return self.state.phase is session.Phase.STOPPED

    @property
    def due_at(self) -> float | None:
        """When (Unix seconds) a Tick is due; None while a step is being done."""
        return self.state.next_at if self.state.phase is session.Phase.IDLE else None

    def handle(self, event: session.Event) -> None:
        """Let the session decide, and do what it says."""
        before = self.state
        self.state, actions = session.advance(before, event, session.Moment(time.time(), _jitter(), self._timing))
        self._report(event, before)
        for action in actions:
            self._perform(action)

    def sentence(self, failed: session.Failed) -> str:
        """What a failure means for this pod."""
        return self.state.sentence(failed, time.time())

    def _report(self, event: session.Event, before: session.State) -> None:
        if isinstance(event, session.Failed):
            self.failures[event.kind.value] += 1
            if self.state.problem is event:
                self._log.problem(self.sentence(event), kind=event.kind.value)
        elif before.problem is not None and self.state.problem is None:
            self._log.recovered("the problem is over")
        if event is session.Signal.WRITTEN and (held := self.state.held) is not None:
            self._log.info(
                "credentials written",
                **{self.label: held.access.policy},
                key_version=held.access.key_version,
                expires_at=held.expires_at,
                renew_at=round(self.state.renew_at),
            )

    def _perform(self, action: session.Action) -> None:
        match action:
            case session.Apply(credentials):
                self._apply(credentials)
            case session.Request.LOGIN:
                self._do(self._steps.login)
            case session.Request.READ_ACCESS:
                self._do(self._steps.read_access)
            case session.Sign(access):
                self._do(lambda: self._steps.sign(access))
            case session.Write(pending):
                self._do(lambda: self._steps.write(pending))

    def _do(self, step: Callable[[], session.Event]) -> None:
        self._submit(step, session.Failed(session.Failure.INVALID, "unexpected failure, see the log"))


def _jitter() -> float:
    # Not the random module: it loads hash functions that nothing else here needs.
    return int.from_bytes(os.urandom(4)) / 2**32
