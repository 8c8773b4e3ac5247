"""Performs what `route` decides: looks at leaf and hub in short-lived threads, and tells the relay which way to take.

For one thread; what other threads find out reaches it as events.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sidecar import route
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials
from sidecar.log import Log
from sidecar.route import Answer, Look, Looked, Place, Reach
from sidecar.settings import Settings
from sidecar.upstream import Bug, Connected, Dialler, Report, Trouble, Upstream

if TYPE_CHECKING:  # mode dapr does without it
    from sidecar.relay import Relay

Event = route.Event | Report

_NAMES: Final = {Place.LEAF: "the leaf of this node", Place.HUB: "the hub"}
#: Topic of the log's problems.
_TOPIC: Final = "route"


class Router:
    """The pod's route; `relay` is None where applications or daprd connect by themselves.

    `post` takes events from any thread and has them handed to `handle`.
    """

    def __init__(self, settings: Settings, relay: Relay | None, post: Callable[[Event], None], log: Log) -> None:
        self._ca_bundle = settings.ca_bundle
        self._timing = settings.route
        self._dialler = Dialler()
        self._relay = relay
        self._post = post
        self._log = log
        self._state = route.State()
        self._held: Credentials | None = None
        self._problem: str | None = None
        #: The way that is taken now; None before there are credentials and the first look is over.
        self.upstream: Upstream | None = None

    def start(self) -> None:
        """Let the relay serve."""
        if self._relay is not None:
            self._relay.start(self._dialler, self._post)

    def credentials_changed(self, held: Credentials) -> None:
        """There are (new) credentials, and perhaps other servers."""
        self._held = held
        self._advance(route.Offered(held.access.leaf))
        self._take()

    def handle(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case Connected():
                self._problem = None
                self._log.recovered("connected again", topic=_TOPIC)
            case Trouble():
                self._trouble(event)
            case Bug():
                self._log.failure("unexpected failure", error=event.error)
            case _:
                self._advance(event)

    @property
    def wait(self) -> float | None:
        """Seconds until a TICK is due."""
        wake_at = self._state.wake_at
        return None if wake_at is None else max(0.0, wake_at - time.monotonic())

    @property
    def changes(self) -> int:
        """How often the route changed since the first one."""
        return self._state.changes

    def sentence(self) -> str:
        """The route for the readiness page."""
        if self.upstream is None:
            return "looking for the leaf of this node"
        sentence = f"the route is {_NAMES[self.upstream.place]}"
        return sentence if self._problem is None else f"{sentence}, which cannot be used: {self._problem}"

    def stop(self, patience: float) -> None:
        """Wait until the applications have ended their connections through the relay, for so many seconds at most."""
        deadline = time.monotonic() + patience
        while self._relay is not None and self._relay.connections and time.monotonic() < deadline:
            time.sleep(0.02)

    def _trouble(self, event: Trouble) -> None:
        if self.upstream is None or event.place is not self.upstream.place:
            return
        if event.problem is not None:
            self._problem = event.problem
            self._log.problem(event.problem, topic=_TOPIC)
        self._advance(route.Signal.TROUBLE)

    def _advance(self, event: route.Event) -> None:
        jitter = int.from_bytes(os.urandom(2)) / 2**16
        self._state, actions = route.advance(self._state, event, time.monotonic(), jitter, self._timing)
        for action in actions:
            match action:
                case Look():
                    threading.Thread(target=self._look, args=(action, self._held), name="look", daemon=True).start()
                case route.Take():
                    self._log.info("route taken", route=action.place.value, reason=action.reason)
                    self._take()

    def _take(self) -> None:
        """Bring what is used in line with the route and the access document."""
        if self._held is None or self._state.place is None:
            return
        upstream = self._upstream(self._state.place, self._held.access)
        if upstream != self.upstream:
            self.upstream, self._problem = upstream, None
            if self._relay is not None:
                self._relay.use(upstream)

    def _upstream(self, place: Place, access: AccessDocument) -> Upstream:
        if place is Place.HUB:
            return Upstream(place, access.hub, self._ca_bundle)
        trusted = [pem for pem in (self._ca_bundle, access.leaf_ca) if pem is not None]
        return Upstream(place, access.leaf, "\n".join(trusted) or None)

    def _look(self, action: Look, held: Credentials) -> None:
        leaf, hub = self._upstream(Place.LEAF, held.access), self._upstream(Place.HUB, held.access)
        try:
            looked = self._dialler.look(action, leaf, hub, held)
        except Exception as error:  # noqa: BLE001 - the thread's boundary: without an answer nobody would look again
            self._post(Bug(repr(error)))
            looked = Looked(Answer(Reach.SILENT, "unexpected failure"))
        self._post(looked)
