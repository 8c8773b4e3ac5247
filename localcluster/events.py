"""Records Kubernetes Events about objects, counting repetitions instead of adding objects."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import structlog

from edgefarm.errors import EdgefarmError
from localcluster.client import EVENTS, Client, Json

_REMEMBERED: Final = 1000
_log = structlog.get_logger()


def timestamp(moment: datetime | None = None) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes times."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class EventRecorder:
    """Writes Events for one component; an Event that cannot be written is logged and forgotten."""

    def __init__(self, client: Client, component: str) -> None:
        self._client = client
        self._component = component
        self._seen: OrderedDict[tuple[str, str, str], tuple[str, int]] = OrderedDict()

    async def record(self, obj: Json, reason: str, message: str, *, warning: bool = False) -> None:
        """Say that `reason` happened to `obj` (which needs apiVersion and kind)."""
        metadata = obj["metadata"]
        namespace = metadata.get("namespace") or "default"
        key = (metadata["uid"], reason, message)
        name, count = self._seen.get(key, (f"{metadata['name'][:200]}.{uuid4().hex[:16]}", 0))
        try:
            if count:
                change = {"count": count + 1, "lastTimestamp": timestamp()}
                await self._client.patch(EVENTS, name, change, namespace)
            else:
                await self._client.create(EVENTS, self._event(obj, name, reason, message, warning), namespace)
        except EdgefarmError as error:
            self._seen.pop(key, None)
            _log.warning("event not recorded", reason=reason, message=message, error=str(error))
            return
        self._seen[key] = (name, count + 1)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _event(self, obj: Json, name: str, reason: str, message: str, warning: bool) -> Json:
        metadata, now = obj["metadata"], timestamp()
        involved = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
        involved |= {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata.get("namespace") or "default"},
            "involvedObject": involved,
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._component,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
