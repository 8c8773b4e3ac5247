"""The relay of mode nats: applications connect to localhost, and it connects them to the leaf or the hub.

One thread moves all bytes, with non-blocking sockets. A few others, started when they are needed, do what may take
time: names, connecting and TLS. A client waits while the route is in doubt and hears nothing of it; when the route
changes it is told the end of its connection and, as every NATS client does, connects again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from sidecar import natsline
from sidecar.pipe import CHUNK, LINGER, Pipe
from sidecar.route import Place
from sidecar.upstream import Bug, Connected, DialError, Dialled, Dialler, Report, Trouble, Upstream

#: Seconds that a client waits for a server before it is let go; it will come again. Clients wait for two.
HOLD: Final = 1.8
_RETRY: Final = 0.1
_DIALLERS: Final = 4
_BACKLOG: Final = 128
#: File descriptors for everything else in this process.
_SPARE_DESCRIPTORS: Final = 64
#: Seconds until an unanswered byte or keepalive ends a connection. The leaf is on our own node.
_GIVE_UP: Final = {Place.LEAF: 10, Place.HUB: 30}


@dataclass(frozen=True)
class _Client:
    connection: socket.socket
    let_go_at: float


class Relay:
    """Listens at once, serves after `start`; OSError when the address cannot be had."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._dialler = Dialler()
        self._report: Callable[[Report], None] = _no_report
        self._upstream: Upstream | None = None
        self._selector = selectors.DefaultSelector()
        self._buffer = memoryview(bytearray(CHUNK))
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self._woken = socket.socketpair()
        self._waiting: queue.SimpleQueue[_Client] = queue.SimpleQueue()
        self._dialling = 0
        self._threads = 0
        self._pipes: dict[Pipe, Upstream] = {}
        self._closing: set[Pipe] = set()
        self._listening = False
        self._turn = os.urandom(1)[0]
        self._room = _descriptors() // 2

    def start(self, dialler: Dialler, report: Callable[[Report], None]) -> None:
        """Serve in the background until the process ends; `report` is called by the relay's threads."""
        self._dialler, self._report = dialler, report
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._on_woken)
        threading.Thread(target=self._serve, name="relay", daemon=True).start()

    def use(self, upstream: Upstream) -> None:
        """Connect clients by this way from now on; those that are connected otherwise are made to come again."""
        self._call(partial(self._use, upstream))

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._pipes)

    # ── the relay's own thread ──────────────────────────────────────────────────────────────────────────────────────

    def _serve(self) -> None:
        while True:
            try:
                self._round()
            except Exception as error:  # noqa: BLE001 - the thread's boundary: one connection must not end all others
                self._report(Bug(repr(error)))

    def _round(self) -> None:
        self._listen()
        timeout = 0.5 if self._closing else None
        for key, mask in self._selector.select(timeout):
            key.data(mask)
        if self._closing:
            self._end_overdue()

    def _listen(self) -> None:
        """Accept clients only as long as there are descriptors for them."""
        wanted = len(self._pipes) + self._dialling < self._room
        if wanted == self._listening:
            return
        self._listening = wanted
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ, self._on_client)
        else:
            self._selector.unregister(self._listener)

    def _on_woken(self, _mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def _on_client(self, _mask: int) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again
            return
        self._dialling += 1
        self._waiting.put(_Client(connection, time.monotonic() + HOLD))
        if self._threads < min(_DIALLERS, self._dialling):
            self._threads += 1
            threading.Thread(target=self._dial_clients, name="dial", daemon=True).start()

    def _use(self, upstream: Upstream) -> None:
        self._upstream = upstream
        for pipe, used in self._pipes.items():
            if used != upstream and pipe not in self._closing:
                pipe.redirect()
                self._close_soon(pipe)
                self._await(pipe)

    def _join(self, client: _Client, upstream: Upstream, dialled: Dialled) -> None:
        self._dialling -= 1
        if upstream != self._upstream:
            dialled.connection.close()
            self._dialling += 1
            self._waiting.put(client)
            return
        for connection in (client.connection, dialled.connection):
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _give_up_after(dialled.connection, _GIVE_UP[upstream.place])
        greeting = natsline.rewrite_info(dialled.info, *self._address) + dialled.rest
        pipe = Pipe(client.connection, dialled.connection, greeting, natsline.Rewriter(natsline.rewrite_connect).feed)
        self._pipes[pipe] = upstream
        pipe.down.flush()
        self._await(pipe)

    def _let_go(self, client: _Client) -> None:
        self._dialling -= 1
        client.connection.close()

    def _on_ready(self, pipe: Pipe, side: socket.socket, mask: int) -> None:
        upstream = self._pipes.get(pipe)
        if upstream is None:  # closed by an earlier event of this round
            return
        if pipe.ready(side, mask, self._buffer) and pipe not in self._closing:
            self._report(Trouble(upstream.place, None))
        if pipe.ended:
            self._close_soon(pipe)
        if pipe.done:
            self._close(pipe)
        else:
            self._await(pipe)

    def _await(self, pipe: Pipe) -> None:
        registered = self._selector.get_map()
        for side in (pipe.client, pipe.server):
            events = pipe.interest(side)
            key = registered.get(side)
            if key is None:
                if events:
                    self._selector.register(side, events, partial(self._on_ready, pipe, side))
            elif not events:
                self._selector.unregister(side)
            elif key.events != events:
                self._selector.modify(side, events, key.data)

    def _close_soon(self, pipe: Pipe) -> None:
        if pipe.close_by is None:
            pipe.close_by = time.monotonic() + LINGER
            self._closing.add(pipe)

    def _end_overdue(self) -> None:
        now = time.monotonic()
        for pipe in [pipe for pipe in self._closing if pipe.close_by is not None and pipe.close_by <= now]:
            self._close(pipe)

    def _close(self, pipe: Pipe) -> None:
        registered = self._selector.get_map()
        for side in (pipe.client, pipe.server):
            if side in registered:
                self._selector.unregister(side)
        pipe.close()
        self._closing.discard(pipe)
        del self._pipes[pipe]

    # ── other threads ───────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self, job: Callable[[], None]) -> None:
        self._calls.put(job)
        with contextlib.suppress(BlockingIOError):  # full: it will wake in any case
            self._waker.send(b"\0")

    def _dial_clients(self) -> None:
        while True:
            client, found = self._waiting.get(), None
            try:
                found = self._dial(client)
            except Exception as error:  # noqa: BLE001 - the thread's boundary: it serves other clients, too
                self._report(Bug(repr(error)))
            self._call(partial(self._let_go, client) if found is None else partial(self._join, client, *found))

    def _dial(self, client: _Client) -> tuple[Upstream, Dialled] | None:
        """A server for the client; None when there is none in time."""
        while time.monotonic() < client.let_go_at:
            upstream = self._upstream
            if upstream is not None:
                for url in self._in_turn(upstream.urls):
                    try:
                        dialled = self._dialler.dial(url, upstream)
                    except DialError as error:
                        self._report(Trouble(upstream.place, str(error)))
                        continue
                    self._report(Connected(upstream.place))
                    return upstream, dialled
            time.sleep(_RETRY)
        return None

    def _in_turn(self, urls: tuple[str, ...]) -> tuple[str, ...]:
        """The servers, beginning with another one each time."""
        self._turn += 1
        first = self._turn % len(urls)
        return urls[first:] + urls[:first]


def _no_report(_report: Report) -> None:
    """Nothing happens before the start."""


def _descriptors() -> int:
    """How many descriptors connections may use; the limit is raised as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = sys.maxsize if hard == resource.RLIM_INFINITY else hard
    return limit - _SPARE_DESCRIPTORS


def _give_up_after(connection: socket.socket, seconds: int) -> None:
    """Have the kernel end a connection whose other side is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds // 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 6))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
