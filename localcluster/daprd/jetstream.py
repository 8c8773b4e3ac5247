"""The pubsub.jetstream component on the real NATS: publish with acknowledgement, push consumers, close.

Follows components-contrib pubsub/jetstream: it asks the server what that asks, so the same permissions are needed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from edgefarm.nats import nkeys
from localcluster.daprd.resources import InitError, JetStreamMetadata

#: Seconds for an acknowledgement or an API answer, as in nats.go.
_TIMEOUT: Final = 5.0
_CLOSE_TIMEOUT: Final = 1.0
#: nats.go's defaults: after so many attempts, this many seconds apart, the connection closes for good.
_RECONNECTS: Final = 60
_RECONNECT_WAIT: Final = 2.0

#: Gets topic and data; raises to have the message delivered again.
Handler = Callable[[str, bytes], Awaitable[None]]


class PubSubError(Exception):
    """The server refused or did not answer."""


class JetStream:
    """One initialised component."""

    def __init__(self, metadata: JetStreamMetadata, log: Callable[[str, str], None]) -> None:
        self._metadata = metadata
        self._log = log
        self._client = Client()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        """Connect once; InitError when no server accepts the credentials, which ends daprd."""
        metadata = self._metadata
        options: dict[str, Any] = {}
        if metadata.jwt:
            options["user_jwt_cb"] = metadata.jwt.encode
            options["signature_cb"] = self._sign
        try:
            await self._client.connect(
                servers=list(metadata.urls),
                name=metadata.name,
                # The first connection must succeed at once.
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=_RECONNECT_WAIT,
                connect_timeout=2,
                error_cb=self._note,
                **options,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self._client.close()
            raise InitError(f"nats: {error or 'no servers available for connection'}") from None
        self._client.options |= {"allow_reconnect": True, "max_reconnect_attempts": _RECONNECTS}

    async def publish(self, topic: str, data: bytes) -> None:
        """Publish and wait for the stream's acknowledgement; PubSubError without one."""
        headers = {}
        if identifier := _event_id(data):
            headers["Nats-Msg-Id"] = identifier
        answer = await self._request(topic, data, headers)
        if "error" in answer:
            raise PubSubError(f"nats: {answer['error'].get('description')}")

    async def subscribe(self, topic: str, handler: Handler) -> None:
        """Create a push consumer for `topic` and deliver to `handler`; PubSubError when the server refuses."""
        stream = self._metadata.stream or await self._stream_of(topic)
        inbox = self._client.new_inbox()
        config = {
            **self._metadata.consumer,
            "deliver_subject": inbox,
            "ack_policy": self._metadata.ack_policy,
            "filter_subject": topic,
        }
        if "opt_start_time" in config:
            config["opt_start_time"] = datetime.fromtimestamp(config["opt_start_time"], UTC).isoformat()
        # Subscribed first: a push consumer delivers from the moment it exists.
        group = config.get("deliver_group", "")
        subscription = await self._client.subscribe(inbox, queue=group, cb=self._callback(topic, handler))
        try:
            name = await self._create_consumer(stream, config)
            await self._api(f"CONSUMER.INFO.{stream}.{name}", {})
        except PubSubError:
            await subscription.unsubscribe()
            raise

    async def close(self) -> None:
        """Drain and close; messages that were not acknowledged come again."""
        for task in self._tasks:
            task.cancel()
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
                async with asyncio.timeout(_TIMEOUT):
                    await self._client.drain()
                return
        closing = asyncio.create_task(self._client.close())
        # nats-py may wait for ever for the end of a connection that it has lost, at more than one place.
        while not (await asyncio.wait([closing], timeout=_CLOSE_TIMEOUT))[0]:
            closing.cancel()

    async def _create_consumer(self, stream: str, config: Mapping[str, Any]) -> str:
        durable = config.get("durable_name")
        if durable is None:
            path = f"CONSUMER.CREATE.{stream}"
        else:
            path = f"CONSUMER.CREATE.{stream}.{durable}.{config['filter_subject']}"
        answer = await self._api(
            path, {"stream_name": stream, "config": {**config, **({"name": durable} if durable else {})}}
        )
        return str(answer["name"])

    async def _stream_of(self, topic: str) -> str:
        streams = (await self._api("STREAM.NAMES", {"subject": topic})).get("streams") or []
        if len(streams) != 1:
            raise PubSubError("nats: no stream matches subject")
        return str(streams[0])

    async def _api(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self._request(f"{self._metadata.api_prefix}.{path}", json.dumps(body).encode())
        if "error" in answer:
            raise PubSubError(f"nats: {answer['error'].get('description')}")
        return answer

    async def _request(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            message = await self._client.request(subject, data, timeout=_TIMEOUT, headers=headers)
        except nats.errors.NoRespondersError:
            raise PubSubError("nats: no response from stream") from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise PubSubError(f"nats: {error or 'timeout'}") from None
        answer = json.loads(message.data)
        return answer if isinstance(answer, dict) else {}

    def _callback(self, topic: str, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
        async def deliver(message: Msg) -> None:
            await self._deliver(topic, handler, message)

        async def spawn(message: Msg) -> None:
            task = asyncio.create_task(deliver(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return spawn if self._metadata.parallel else deliver

    async def _deliver(self, topic: str, handler: Handler, message: Msg) -> None:
        acknowledges = self._metadata.ack_policy != "none"
        try:
            await handler(topic, message.data)
        except Exception as error:  # noqa: BLE001 - the boundary to the application
            self._log("error", f"Error processing JetStream message {message.subject}: {error}")
            if acknowledges:
                wait = self._metadata.ack_wait_nanoseconds
                await message.nak(delay=wait / 1e9 if wait else None)
            return
        if acknowledges:
            await message.ack()

    def _sign(self, nonce: str) -> bytes:
        return base64.b64encode(nkeys.sign(self._metadata.seed, nonce.encode()))

    async def _note(self, error: Exception) -> None:
        self._log("warn", f"nats: {error}")


def _event_id(data: bytes) -> str | None:
    try:
        event = json.loads(data)
    except ValueError:
        return None
    identifier = event.get("id") if isinstance(event, dict) else None
    return identifier if isinstance(identifier, str) else None
