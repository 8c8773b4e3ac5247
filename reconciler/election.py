"""Leader election by a Lease: at most one replica works, and a holder that cannot renew stops before another begins.

As client-go does, a candidate never compares its clock with another machine's: a Lease has expired when the candidate
itself has seen no renewal for the Lease's whole duration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog

from edgefarm.errors import Conflict, EdgefarmError
from reconciler.ports import LEASE, Kube, Object
from reconciler.settings import ElectionSettings
from reconciler.timestamps import rfc3339_micro


class LeaseLostError(EdgefarmError):
    """We are no longer the leader: all work must stop now."""


@dataclass(frozen=True)
class Candidate:
    """Who wants which Lease. `identity` differs between any two processes."""

    namespace: str
    lease: str
    identity: str
    settings: ElectionSettings = field(default_factory=ElectionSettings)


class LeaderElection:
    """One candidate: `acquire`, then `hold` until it raises, and `release` on the way out."""

    def __init__(
        self,
        kube: Kube,
        candidate: Candidate,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self.leading = False
        self._kube = kube
        self._candidate = candidate
        self._settings = candidate.settings
        self._clock = clock
        self._chance = chance
        self._log = log.bind(lease=candidate.lease, identity=candidate.identity)
        self._lease: Object | None = None
        self._observed: Any = None
        self._observed_at = 0.0

    async def acquire(self) -> None:
        """Wait until we hold the Lease."""
        told = False
        while not await self._try():
            if not told:
                self._log.info("waiting for the lease", holder=self._holder() or "nobody")
                told = True
            # Jitter, so that candidates that wait together do not all collide in the same instant.
            await asyncio.sleep(self._settings.retry_period.total_seconds() * (1 + self._chance()))
        self.leading = True
        self._log.info("leading")

    async def hold(self) -> None:
        """Renew the Lease for ever; LeaseLostError when another holds it or it was not renewed within the deadline."""
        deadline, retry = self._settings.renew_deadline.total_seconds(), self._settings.retry_period.total_seconds()
        try:
            while True:
                renewed_at = self._now()
                await asyncio.sleep(retry)
                try:
                    async with asyncio.timeout_at(renewed_at + deadline):
                        while not await self._try():
                            if self._holder() not in ("", self._candidate.identity):
                                raise LeaseLostError(f"The lease was taken by {self._holder()}.")
                            await asyncio.sleep(retry)
                except TimeoutError:
                    raise LeaseLostError(f"The lease could not be renewed within {deadline:g} s.") from None
        finally:
            self.leading = False

    async def release(self) -> None:
        """Give the Lease up, so that a successor need not wait until it expires; best effort, within two seconds."""
        self.leading = False
        candidate = self._candidate
        try:
            async with asyncio.timeout(2):
                # Read afresh: a renewal may have been cut off on its way back.
                lease = self._lease and await self._kube.get(LEASE, candidate.namespace, candidate.lease)
                if not lease or lease["spec"].get("holderIdentity") != candidate.identity:
                    return
                now = rfc3339_micro(self._clock())
                lease["spec"].update(holderIdentity="", leaseDurationSeconds=1, renewTime=now, acquireTime=now)
                await self._kube.replace(LEASE, lease)
            self._log.info("lease released")
        except (EdgefarmError, TimeoutError) as error:
            self._log.warning("the lease could not be released", reason=str(error) or "no answer in time")

    async def _try(self) -> bool:
        """Take or renew the Lease if we may; False when we do not hold it now (also when we cannot know)."""
        candidate = self._candidate
        try:
            if self._holder() != candidate.identity or self._lease is None:
                self._observe(await self._kube.get(LEASE, candidate.namespace, candidate.lease))
            if self._lease is None:
                self._observe(await self._kube.create(LEASE, self._wanted(None)))
                return True
            if not self._free():
                return False
            self._observe(await self._kube.replace(LEASE, self._wanted(self._lease)))
        except Conflict:
            self._lease = None  # somebody else wrote it: read it before the next attempt
            return False
        except EdgefarmError as error:
            self._log.warning("the lease cannot be read or written", reason=str(error))
            return False
        return True

    def _free(self) -> bool:
        """Whether we may take the Lease that we know: ours, nobody's, or not renewed for its whole duration."""
        assert self._lease is not None
        if self._holder() in ("", self._candidate.identity):
            return True
        duration = self._lease["spec"].get("leaseDurationSeconds") or self._settings.lease_duration.total_seconds()
        return self._now() - self._observed_at >= duration

    def _wanted(self, lease: Object | None) -> Object:
        candidate, now = self._candidate, rfc3339_micro(self._clock())
        wanted: Object = deepcopy(lease or {}) or {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": candidate.namespace, "name": candidate.lease},
        }
        old = wanted.get("spec") or {}
        ours = old.get("holderIdentity") == candidate.identity
        wanted["spec"] = {
            **old,
            "holderIdentity": candidate.identity,
            "leaseDurationSeconds": int(self._settings.lease_duration.total_seconds()),
            "acquireTime": old.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (lease is not None and not ours),
        }
        return wanted

    def _observe(self, lease: Object | None) -> None:
        """Remember the Lease, and when we first saw this state of it."""
        self._lease = lease
        state = None if lease is None else lease.get("spec")
        if state != self._observed:
            self._observed, self._observed_at = state, self._now()

    def _holder(self) -> str:
        spec = (self._lease or {}).get("spec") or {}
        return str(spec.get("holderIdentity") or "")

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
