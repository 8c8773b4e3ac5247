"""Owns what is known of the agent's standing with the reconciler: for readiness, metrics and the log."""

from __future__ import annotations

import structlog

from agent.metrics import Metrics


class Presence:
    """Whether the agent is registered, else why not. A problem is logged when it comes up, not whenever it is met."""

    def __init__(self, metrics: Metrics, *, log: structlog.stdlib.BoundLogger) -> None:
        self.ready = False
        self.sentence = "starting"
        #: The reconciler makes the device of a new agent, unless it exists. A reconciler that dies right after it has
        #: registered us has perhaps not done so, so we are new until it has answered a heartbeat, too.
        self.new = True
        self._metrics = metrics
        self._log = log

    def registered(self, device: str) -> None:
        """The reconciler knows us."""
        sentence = f"registered as {device}"
        if sentence != self.sentence:
            self._log.info("registered", device=device)
        self._set(True, sentence)

    def confirmed(self, device: str) -> None:
        """The reconciler still knows us."""
        self.registered(device)
        self.new = False

    def trouble(self, sentence: str) -> None:
        """The reconciler cannot reach us, and this is why."""
        if sentence != self.sentence:
            self._log.warning("not registered", reason=sentence)
        self._set(False, sentence)

    def _set(self, ready: bool, sentence: str) -> None:
        self.ready = ready
        self.sentence = sentence
        self._metrics.registered.set(ready)
