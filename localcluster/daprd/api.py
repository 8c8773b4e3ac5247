"""Dapr's HTTP API: publish, health, metadata, shutdown (pkg/api/http); anything else is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localcluster.daprd import events
from localcluster.daprd.jetstream import PubSubError
from localcluster.daprd.runtime import Runtime

_VERSION: Final = "1.18.0-standin"


def make_api(runtime: Runtime) -> Starlette:
    """The application that serves the API of one runtime."""
    api = _Api(runtime)
    return Starlette(
        routes=[
            Route("/v1.0/publish/{pubsub}/{topic:path}", api.publish, methods=["POST", "PUT"]),
            Route("/v1.0/healthz", api.healthz, methods=["GET"]),
            Route("/v1.0/healthz/outbound", api.outbound, methods=["GET"]),
            Route("/v1.0/metadata", api.metadata, methods=["GET"]),
            Route("/v1.0/shutdown", api.shutdown, methods=["POST"]),
            Route("/{path:path}", api.unknown, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]
    )


class _Api:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def publish(self, request: Request) -> Response:
        name, topic = request.path_params["pubsub"], request.path_params["topic"]
        metadata = {
            key.lower().removeprefix("metadata."): value
            for key, value in request.query_params.items()
            if key.lower().startswith("metadata.")
        }
        raw = metadata.pop("rawpayload", "false").lower() in ("true", "1", "t")
        pubsub = self._runtime.pubsubs.get(name)
        if pubsub is None:
            return _error(404, "ERR_PUBSUB_NOT_FOUND", f"pubsub {name} is not found")
        if not topic:
            return _error(404, "ERR_TOPIC_NAME_EMPTY", f"topic is empty in pubsub {name}")
        if metadata:
            return _error(501, "ERR_NOT_PART_OF_STANDIN", f"metadata {', '.join(metadata)} is not part of the stand-in")
        data = await request.body()
        if not raw:
            address = events.Address(self._runtime.options.app_id, name, topic)
            try:
                data = events.wrap(data, request.headers.get("content-type", ""), address, datetime.now(UTC))
            except ValueError as error:
                return _error(500, "ERR_PUBSUB_CLOUD_EVENTS_SER", f"cannot create cloudevent: {error}")
        try:
            await pubsub.publish(topic, data)
        except PubSubError as error:
            message = f"error when publishing to topic {topic} in pubsub {name}: {error}"
            return _error(500, "ERR_PUBSUB_PUBLISH_MESSAGE", message)
        return Response(status_code=204)

    async def healthz(self, _request: Request) -> Response:
        if not self._runtime.ready:
            return _error(500, "ERR_HEALTH_NOT_READY", "dapr is not ready: [app]")
        return Response(status_code=204)

    async def outbound(self, _request: Request) -> Response:
        if not self._runtime.outbound_ready:
            return _error(500, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready")
        return Response(status_code=204)

    async def metadata(self, _request: Request) -> Response:
        components = [
            {"name": component.name, "type": component.type, "version": component.version, "capabilities": []}
            for component in self._runtime.components.values()
            if component.name in self._runtime.pubsubs
        ]
        subscriptions = [
            {"pubsubname": found.pubsub, "topic": found.topic, "rules": [{"path": found.route}], "type": "PROGRAMMATIC"}
            for found in self._runtime.subscriptions
        ]
        return JSONResponse(
            {
                "id": self._runtime.options.app_id,
                "runtimeVersion": _VERSION,
                "components": components,
                "subscriptions": subscriptions,
            }
        )

    async def shutdown(self, _request: Request) -> Response:
        self._runtime.end(0, "Received shutdown request")
        return Response(status_code=204)

    async def unknown(self, request: Request) -> Response:
        return _error(
            501, "ERR_NOT_PART_OF_STANDIN", f"{request.method} {request.url.path} is not part of the stand-in"
        )


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"errorCode": code, "message": message}, status_code=status)
