"""The running stand-in: components, their reload when a file changes, the application's subscriptions, its end."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from localcluster.daprd import events
from localcluster.daprd.application import Application, Subscription
from localcluster.daprd.flags import Options
from localcluster.daprd.jetstream import Handler, JetStream, PubSubError
from localcluster.daprd.resources import Component, InitError, JetStreamMetadata, read

#: daprd gathers changes of files for half a second.
_RELOAD_EVERY: Final = 0.5
_LEVELS: Final = ("debug", "info", "warn", "error", "fatal")


class Runtime:
    """What the API asks: `pubsubs` by name, `outbound_ready`, `ready`; `ended` is set when the process must end."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.components: dict[str, Component] = {}
        self.pubsubs: dict[str, JetStream] = {}
        self.subscriptions: list[Subscription] = []
        self.outbound_ready = False
        self.ready = False
        self.ended = asyncio.Event()
        self.status = 0
        self._application: Application | None = None
        if options.app_port is not None:
            self._application = Application(options.app_address, options.app_port, options.app_id, self.log)

    def log(self, level: str, message: str) -> None:
        """One line in daprd's manner, on stdout."""
        if _LEVELS.index(level) < _LEVELS.index(self.options.log_level):
            return
        line = {"app_id": self.options.app_id, "level": level, "msg": message, "scope": "dapr.runtime", "type": "log"}
        line["time"] = datetime.now(UTC).isoformat()
        text = json.dumps(line) if self.options.log_as_json else " ".join(f"{k}={v!r}" for k, v in line.items())
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    async def load(self) -> None:
        """Initialise all components; InitError when one cannot be and does not ignore errors."""
        for component in read(self.options.resources).values():
            await self._initialise(component)
        self.outbound_ready = True

    async def serve_application(self) -> None:
        """Wait for the application's port and subscribe for it."""
        if self._application is not None:
            self.log("info", f"application protocol: http. waiting on port {self.options.app_port}")
            await self._application.listening()
            self.subscriptions = await self._application.subscriptions()
            for name in self.pubsubs:
                await self._subscribe(name)
        self.ready = True
        self.log("info", "dapr initialized. Status: Running")

    async def watch(self) -> None:
        """Close and initialise components again when their files change; end the process when that fails."""
        before = self._snapshot()
        while True:
            await asyncio.sleep(_RELOAD_EVERY)
            now = self._snapshot()
            if now == before:
                continue
            before = now
            try:
                await self._reconcile(read(self.options.resources))
            except InitError as error:
                self.end(1, f"Error processing component, daprd will exit gracefully: {error}")

    def end(self, status: int, message: str) -> None:
        """End the process soon."""
        self.log("info" if status == 0 else "fatal", message)
        self.status = status
        self.ended.set()

    async def close(self) -> None:
        """Close all components within the grace period."""
        await asyncio.wait(
            [asyncio.create_task(pubsub.close()) for pubsub in self.pubsubs.values()]
            or [asyncio.create_task(asyncio.sleep(0))],
            timeout=self.options.graceful_shutdown_seconds,
        )

    async def _reconcile(self, wanted: dict[str, Component]) -> None:
        for name, component in list(self.components.items()):
            if wanted.get(name) != component:
                self.log("info", f"Closing existing Component to reload: {name} ({component.type}/{component.version})")
                del self.components[name]
                pubsub = self.pubsubs.pop(name, None)
                if pubsub is not None:
                    await pubsub.close()
        for name, component in wanted.items():
            if name not in self.components:
                await self._initialise(component)
                if self.ready:
                    await self._subscribe(name)
                self.log("info", f"Component updated: {name} ({component.type}/{component.version})")

    async def _initialise(self, component: Component) -> None:
        self.components[component.name] = component
        try:
            pubsub = JetStream(JetStreamMetadata.parse(component), self.log)
            await pubsub.connect()
        except InitError as error:
            message = f"[INIT_COMPONENT_FAILURE]: initialization error occurred for {component.name}: {error}"
            if not component.ignore_errors:
                raise InitError(message) from error
            self.log("error", f"Ignoring error processing component: {message}")
            return
        self.pubsubs[component.name] = pubsub
        self.log("info", f"Component loaded: {component.name} ({component.type}/{component.version})")

    async def _subscribe(self, name: str) -> None:
        for subscription in self.subscriptions:
            if subscription.pubsub == name and name in self.pubsubs:
                try:
                    await self.pubsubs[name].subscribe(subscription.topic, self._handler(subscription))
                except PubSubError as error:
                    self.log("error", f"failed to subscribe to topic {subscription.topic}: {error}")

    def _handler(self, subscription: Subscription) -> Handler:
        application = self._application
        assert application is not None  # who subscribes has a port

        async def handle(topic: str, data: bytes) -> None:
            address = events.Address(self.options.app_id, subscription.pubsub, topic)
            event = events.from_raw(data, address) if subscription.raw else data
            if not isinstance(json.loads(event), dict):
                raise ValueError("error deserializing cloud event")
            await application.deliver(subscription.route, event)

        return handle

    def _snapshot(self) -> dict[Path, tuple[int, int, int]]:
        found = {}
        for folder in self.options.resources:
            for path in folder.iterdir():
                if path.suffix in (".yaml", ".yml"):
                    try:
                        status = path.stat()
                    except FileNotFoundError:
                        continue
                    found[path] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found
