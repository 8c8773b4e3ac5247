"""CloudEvents as daprd makes and reads them (pkg/runtime/pubsub/cloudevents.go, contrib pubsub/envelope.go). Pure."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

_CLOUD_EVENT: Final = "application/cloudevents+json"
_EVENT_TYPE: Final = "com.dapr.event.sent"


@dataclass(frozen=True)
class Address:
    """Where an event goes, and from whom."""

    source: str
    pubsub: str
    topic: str


def is_cloud_event(content_type: str) -> bool:
    """Whether the body is a CloudEvent already."""
    return content_type.partition(";")[0].strip().lower() == _CLOUD_EVENT


def wrap(data: bytes, content_type: str, address: Address, now: datetime) -> bytes:
    """The event that is published for an ordinary body, or for a CloudEvent; ValueError for a broken CloudEvent."""
    if is_cloud_event(content_type):
        event = json.loads(data)
        if not isinstance(event, dict):
            raise ValueError("the CloudEvent is not a JSON object")
        event = {**event, "topic": address.topic, "pubsubname": address.pubsub}
        return json.dumps({"id": str(uuid.uuid4()), **event}).encode()
    content_type = content_type or "text/plain"
    event = {
        "id": str(uuid.uuid4()),
        "specversion": "1.0",
        "datacontenttype": content_type,
        "source": address.source,
        "type": _EVENT_TYPE,
        "topic": address.topic,
        "pubsubname": address.pubsub,
        "traceid": "",
        "traceparent": "",
        "tracestate": "",
        "time": now.isoformat(timespec="seconds"),
        **_data(data, content_type),
    }
    return json.dumps(event).encode()


def from_raw(data: bytes, address: Address) -> bytes:
    """The event that a subscriber of raw payloads gets."""
    event = {
        "id": str(uuid.uuid4()),
        "specversion": "1.0",
        "datacontenttype": "application/octet-stream",
        "source": "Dapr",
        "type": _EVENT_TYPE,
        "topic": address.topic,
        "pubsubname": address.pubsub,
        "data_base64": base64.b64encode(data).decode(),
    }
    return json.dumps(event).encode()


def _data(data: bytes, content_type: str) -> dict[str, Any]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return {"data": json.loads(data)}
        except ValueError:
            return {"data": data.decode(errors="replace")}
    if kind == "application/octet-stream":
        return {"data_base64": base64.b64encode(data).decode()}
    return {"data": data.decode(errors="replace")}
