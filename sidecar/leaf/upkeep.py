"""When nats-server is told to reload or restart, and when a missing uplink means that the hub refuses our credentials:
two small pure state machines. Times are seconds of a clock that never goes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from sidecar.leaf.configuration import Change

#: How long a reload or restart may take before it is asked for again, the first time and at most.
FIRST_PATIENCE: Final = 10.0
LONGEST_PATIENCE: Final = 300.0
#: How long nats-server may be without a connection to a hub that can be reached: it connects once a second, and a leaf
#: that starts for the first time has to look its account up before.
LOST_PATIENCE: Final = 8.0


@dataclass(frozen=True)
class Upkeep:
    """What was asked of nats-server last. `attempts` counts how often for the change that is still due."""

    asked: Change = Change.NONE
    asked_at: float = 0.0
    attempts: int = 0
    reloads: int = 0
    restarts: int = 0

    @property
    def overdue(self) -> bool:
        """Whether the server was asked and has not followed."""
        return self.attempts > 1

    def due(self, change: Change, now: float) -> bool:
        """Whether the server is to be asked now."""
        if change is Change.NONE:
            return False
        return change is not self.asked or now - self.asked_at >= _patience(FIRST_PATIENCE, self.attempts)

    def ask(self, change: Change, now: float) -> Upkeep:
        """The server is being asked."""
        again = self.attempts if change is self.asked else 0
        return replace(self, asked=change, asked_at=now, attempts=again + 1)

    def renewed(self) -> Upkeep:
        """Another configuration is wanted than before: the server is asked for that one at once."""
        return replace(self, asked=Change.NONE, attempts=0)

    def settled(self) -> Upkeep:
        """The server has the wanted configuration."""
        if self.asked is Change.NONE:
            return self
        done = replace(self, asked=Change.NONE, attempts=0)
        if self.asked is Change.RELOAD:
            return replace(done, reloads=self.reloads + 1)
        return replace(done, restarts=self.restarts + 1)


@dataclass(frozen=True)
class Connecting:
    """Since when the uplink is missing although the hub can be reached, and how often that was taken as a refusal."""

    lost_since: float | None = None
    refusals: int = 0

    def observe(self, *, connected: bool, reachable: bool, now: float) -> tuple[Connecting, bool]:
        """The next state, and whether the credentials count as refused now."""
        if connected:
            return Connecting(), False
        if not reachable:
            return replace(self, lost_since=None), False
        if self.lost_since is None:
            return replace(self, lost_since=now), False
        if now - self.lost_since < _patience(LOST_PATIENCE, self.refusals + 1):
            return self, False
        return Connecting(lost_since=now, refusals=self.refusals + 1), True


def _patience(first: float, attempts: int) -> float:
    return min(LONGEST_PATIENCE, first * 2.0 ** min(max(attempts - 1, 0), 16))
