"""The application's side: which topics it wants, and handing it events (pkg/runtime/subscription)."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from localcluster.process import accepts

_TIMEOUT: Final = 30.0


class DeliveryError(Exception):
    """The application did not take an event: it must come again."""


@dataclass(frozen=True)
class Subscription:
    """One entry of the application's /dapr/subscribe."""

    pubsub: str
    topic: str
    route: str
    raw: bool


class Application:
    """The application of the pod, over HTTP."""

    def __init__(self, host: str, port: int, app_id: str, log: Callable[[str, str], None]) -> None:
        self._host = host
        self._port = port
        self._app_id = app_id
        self._log = log

    async def listening(self) -> None:
        """Return when its port is open."""
        while True:
            if await asyncio.to_thread(accepts, self._host, self._port):
                return
            await asyncio.sleep(0.1)

    async def subscriptions(self) -> list[Subscription]:
        """What it subscribes to; nothing when it has no /dapr/subscribe."""
        try:
            status, body = await self._call("GET", "/dapr/subscribe", None)
            if status != 200:
                return []
            return [_subscription(item) for item in json.loads(body) or ()]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            self._log("error", f"error getting topic list from app: {error}")
            return []

    async def deliver(self, route: str, event: bytes) -> None:
        """Hand over one event; return when it was taken or is to be dropped, else raise DeliveryError."""
        try:
            status, body = await self._call("POST", f"/{route.lstrip('/')}", event)
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError(
                f"error returned from app channel while sending pub/sub event to app: {error}"
            ) from None
        if status == 404:
            self._log("error", "non-retriable error returned from app while processing pub/sub event: 404")
            return
        if not 200 <= status < 300:
            raise DeliveryError(f"retriable error returned from app. status code returned: {status}")
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(body)
        wish = answer.get("status", "") if isinstance(answer, dict) else ""
        if wish == "DROP":
            self._log("warn", "DROP status returned from app while processing pub/sub event")
        elif wish not in ("", "SUCCESS"):
            raise DeliveryError(f"{wish} status returned from app while processing pub/sub event")

    async def _call(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        return await asyncio.to_thread(self._exchange, method, path, body)

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        client = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT)
        with contextlib.closing(client):
            content_type = "application/json" if body is None else "application/cloudevents+json"
            client.request(method, path, body, {"Content-Type": content_type, "dapr-app-id": self._app_id})
            response = client.getresponse()
            return response.status, response.read()


def _subscription(item: dict[str, Any]) -> Subscription:
    routes = item.get("routes") or {}
    if routes.get("rules"):
        raise ValueError("routing rules are not part of the stand-in: use route or routes.default")
    route = routes.get("default") or item.get("route") or ""
    raw = str((item.get("metadata") or {}).get("rawPayload", "")).lower() == "true"
    return Subscription(str(item["pubsubname"]), str(item["topic"]), str(route), raw)
