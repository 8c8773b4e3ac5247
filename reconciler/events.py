"""Events about objects (events.k8s.io/v1): repeats become one series, floods are cut, and nobody ever waits for one."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import structlog

from edgefarm import names
from edgefarm.errors import EdgefarmError
from reconciler.ports import EVENT, Kube, Object
from reconciler.timestamps import rfc3339_micro

_MAX_NOTE: Final = 1024  # a rule of the Kubernetes API
_MAX_NAME: Final = 253  # likewise


@dataclass(frozen=True)
class EventLimits:
    """Seconds and counts that keep Events few.

    A repeat within `quiet` after the last write is counted and written with the first one after it. An object may have
    `burst` different Events at once and one more every `refill` seconds. `remembered` Events and `waiting` unwritten
    ones are kept at most.
    """

    quiet: float = 1800.0
    burst: int = 25
    refill: float = 30.0
    remembered: int = 4096
    waiting: int = 256


class _Identity(NamedTuple):
    """Events that are equal in this are one series."""

    object: str
    type: str
    reason: str
    note: str


@dataclass
class _Series:
    name: str
    namespace: str
    written_at: float
    count: int = 1


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class EventRecorder:
    """Implements `context.Recorder`; `run` writes what was recorded."""

    def __init__(
        self,
        kube: Kube,
        instance: str,
        *,
        clock: Callable[[], datetime],
        log: structlog.stdlib.BoundLogger,
        limits: EventLimits | None = None,
    ) -> None:
        """`instance` is the reporting instance: the pod's name."""
        self._kube = kube
        self._instance = instance
        self._clock = clock
        self._log = log
        self._limits = limits or EventLimits()
        self._waiting: asyncio.Queue[tuple[_Identity, Object]] = asyncio.Queue(self._limits.waiting)
        self._series: OrderedDict[_Identity, _Series] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def normal(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        """Something happened that a user may want to know."""
        self._record("Normal", about, reason, message)

    def warning(self, about: Mapping[str, Any], reason: str, message: str) -> None:
        """Something is wrong, and `message` says what to do."""
        self._record("Warning", about, reason, message)

    async def run(self) -> None:
        """Write what was recorded, until cancelled."""
        while True:
            identity, event = await self._waiting.get()
            try:
                await self._write(identity, event)
            except EdgefarmError as error:
                # Also when Kubernetes has deleted the Event, as it does after an hour: a repeat begins a new series.
                self._series.pop(identity, None)
                self._log.warning("an event could not be written", reason=identity.reason, problem=str(error))
            except Exception:  # noqa: BLE001 (boundary: an odd object must not end the recorder)
                self._log.exception("an event could not be written", reason=identity.reason)
            finally:
                self._waiting.task_done()

    async def drained(self) -> None:
        """Return when everything that was recorded has been written or given up."""
        await self._waiting.join()

    def _record(self, type_: str, about: Mapping[str, Any], reason: str, message: str) -> None:
        note = message if len(message) <= _MAX_NOTE else f"{message[: _MAX_NOTE - 1]}…"
        identity = _Identity(_identify(about), type_, reason, note)
        series = self._series.get(identity)
        if series is not None:
            series.count += 1
            if self._now() - series.written_at < self._limits.quiet:
                return
        elif not self._allow(identity.object):
            return
        event = _event(type_, about, reason, note) if series is None else {}
        try:
            self._waiting.put_nowait((identity, event))
        except asyncio.QueueFull:
            self._log.warning("too many events are waiting to be written", reason=reason)
            return
        if series is None:
            self._remember(identity, event)
        else:
            series.written_at = self._now()

    def _remember(self, identity: _Identity, event: Object) -> None:
        metadata = event["metadata"]
        self._series[identity] = _Series(metadata["name"], metadata["namespace"], self._now())
        while len(self._series) > self._limits.remembered:
            self._series.popitem(last=False)

    async def _write(self, identity: _Identity, event: Object) -> None:
        now = rfc3339_micro(self._clock())
        series = self._series.get(identity)
        if event:
            reporter = {"reportingController": names.GROUP, "reportingInstance": self._instance}
            await self._kube.create(EVENT, {**event, **reporter, "eventTime": now})
        elif series is not None:
            patch = {"series": {"count": series.count, "lastObservedTime": now}}
            await self._kube.patch(EVENT, series.namespace, series.name, patch)

    def _allow(self, about: str) -> bool:
        """A token bucket per object."""
        now, limits = self._now(), self._limits
        bucket = self._buckets.setdefault(about, _Bucket(limits.burst, now))
        bucket.tokens = min(limits.burst, bucket.tokens + (now - bucket.filled_at) / limits.refill)
        bucket.filled_at = now
        while len(self._buckets) > limits.remembered:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _identify(about: Mapping[str, Any]) -> str:
    metadata = about["metadata"]
    parts = (about["apiVersion"], about["kind"], metadata.get("namespace", ""), metadata["name"], metadata.get("uid"))
    return "/".join(str(part) for part in parts)


def _event(type_: str, about: Mapping[str, Any], reason: str, note: str) -> Object:
    metadata = about["metadata"]
    namespace = metadata.get("namespace") or "default"  # where Kubernetes keeps Events about cluster-scoped objects
    regarding = {
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": metadata["name"],
        **({"namespace": metadata["namespace"]} if metadata.get("namespace") else {}),
        **({"uid": metadata["uid"]} if metadata.get("uid") else {}),
    }
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"namespace": namespace, "name": _unique_name(metadata["name"])},
        "type": type_,
        "reason": reason,
        "action": "Reconcile",
        "note": note,
        "regarding": regarding,
    }


def _unique_name(about: str) -> str:
    """A name that begins with the object's, as `kubectl get events` users are used to."""
    suffix = f".{secrets.token_hex(8)}"
    return about[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix
