"""The audit log: one audit.k8s.io/v1 Event for each answer, as a kube-apiserver writes it at level Metadata.

A request that goes on (watch, log, proxy) is also recorded when its answer begins: stage ResponseStarted.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localcluster.apiserver.authorization.attributes import Attributes
from localcluster.apiserver.authorization.gate import Access

Json = dict[str, Any]
_LONG_SUBRESOURCES: Final = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class Audited:
    """Wraps the application and appends what it did to a file.

    The application leaves in the request's state what it found out: `access`, `failure` (the Status of a refusal) and
    `created` (the name of an object whose name is not in the path).
    """

    def __init__(self, app: ASGIApp, path: Path) -> None:
        self._app = app
        # Line by line, so that a reader sees an event as soon as its answer is complete.
        self._file = path.open("a", buffering=1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        received, audit_id, code = datetime.now(UTC), str(uuid.uuid4()), 0

        async def observe(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message.setdefault("headers", []).append((b"audit-id", audit_id.encode()))
                if _goes_on(state.get("access")):
                    self._write(_event(scope, state, "ResponseStarted", code), audit_id, received)
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            self._write(_event(scope, state, "ResponseComplete", code), audit_id, received)

    def _write(self, event: Json, audit_id: str, received: datetime) -> None:
        times = {"requestReceivedTimestamp": _micro(received), "stageTimestamp": _micro(datetime.now(UTC))}
        self._file.write(orjson.dumps({**event, "auditID": audit_id, **times}).decode() + "\n")


def _event(scope: Scope, state: Mapping[str, Any], stage: str, code: int) -> Json:
    access: Access | None = state.get("access")
    headers = Headers(scope=scope)
    path, query = scope["path"], scope["query_string"].decode()
    event: Json = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "stage": stage,
        "requestURI": f"{path}?{query}" if query else path,
        "verb": scope["method"].lower(),
        "user": {},
        "userAgent": headers.get("user-agent", ""),
        "responseStatus": {"metadata": {}, "code": code},
    }
    if client := scope.get("client"):
        event["sourceIPs"] = [client[0]]
    if failure := state.get("failure"):
        status = {key: failure[key] for key in ("status", "message", "reason", "details") if key in failure}
        event["responseStatus"] |= status
    if access is not None:
        event |= {"verb": access.wanted.verb, "user": access.user.info(), "annotations": _annotations(access)}
        if access.impersonator is not None:
            event |= {"user": access.impersonator.info(), "impersonatedUser": access.user.info()}
        if access.wanted.resource:
            event["objectRef"] = _reference(access.wanted, state.get("created", ""))
    return event


def _reference(wanted: Attributes, created: str) -> Json:
    fields = {
        "resource": wanted.resource,
        "namespace": wanted.namespace,
        "name": wanted.name or created,
        "apiGroup": wanted.group,
        "apiVersion": wanted.version,
        "subresource": wanted.subresource,
    }
    return {name: value for name, value in fields.items() if value}


def _annotations(access: Access) -> Json:
    decision = "allow" if access.decision.allowed else "forbid"
    return {"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": access.decision.reason}


def _goes_on(access: Access | None) -> bool:
    return access is not None and (access.wanted.verb == "watch" or access.wanted.subresource in _LONG_SUBRESOURCES)


def _micro(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
