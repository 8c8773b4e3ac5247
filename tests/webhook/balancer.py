"""A TCP balancer as kube-proxy is one: new connections go to replicas that are ready, old ones stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable
from typing import Self

from tests.webhook.conftest import Webhook

#: How often readiness is asked for; a cluster takes longer, which the drain time of the webhook allows for.
_PERIOD = 0.1


class Balancer:
    """Listens on loopback in a thread of its own; a context manager."""

    def __init__(self, replicas: Callable[[], list[Webhook]]) -> None:
        """`replicas` names those that exist; it is called from another thread."""
        self._replicas = replicas
        self._ready: list[Webhook] = []
        self._turn = itertools.count()
        self._forwarding: set[asyncio.Task[None]] = set()
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def sends_to(self, webhook: Webhook) -> bool:
        """Whether new connections may go to this replica."""
        return webhook in self._ready

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        while not self._stop.is_set():
            replicas = self._replicas()
            states = await asyncio.gather(*(asyncio.to_thread(replica.is_ready) for replica in replicas))
            self._ready = [replica for replica, ready in zip(replicas, states, strict=True) if ready]
            if self._ready:
                self._listening.set()
            await asyncio.sleep(_PERIOD)
        server.close()
        for task in list(self._forwarding):
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        await asyncio.sleep(0)  # the aborted transports close their sockets

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        ready = self._ready
        replica = ready[next(self._turn) % len(ready)]
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", replica.port)
            try:
                await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
            finally:
                there_writer.transport.abort()
        writer.transport.abort()
        self._forwarding.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
