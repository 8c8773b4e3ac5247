"""A relay in this process, the plain NATS servers behind it, and a client that speaks the protocol by hand."""

from __future__ import annotations

import json
import queue
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import find_program
from sidecar.relay import Relay
from sidecar.route import Place
from sidecar.upstream import Dialler, Report, Upstream


@dataclass
class Server:
    """A nats-server without accounts."""

    process: LocalProcess
    url: str

    @classmethod
    def start(cls, folder: Path, name: str, config: str = "", port: int = 0, scheme: str = "nats") -> Server:
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        file = folder / f"{name}.conf"
        file.write_text(f"server_name: {name}\nlisten: 127.0.0.1:{port}\n{config}\n")
        process = LocalProcess.start(name, [find_program("nats-server"), "-c", str(file)], log=folder / f"{name}.log")
        process.wait_until(lambda: accepts("127.0.0.1", port), "listening")
        return cls(process, f"{scheme}://127.0.0.1:{port}")

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def upstream(self, trust: str | None = None, place: Place = Place.HUB) -> Upstream:
        """The server as the relay is told of it."""
        return Upstream(place, (self.url,), trust)

    def stop(self) -> None:
        self.process.stop()


@dataclass
class RunningRelay:
    """A relay that serves; `reports` is what it says. Its threads end with the process."""

    relay: Relay
    port: int
    reports: queue.SimpleQueue[Report] = field(default_factory=queue.SimpleQueue)

    @classmethod
    def start(cls, upstream: Upstream | None = None) -> RunningRelay:
        port = free_port()
        running = cls(Relay("127.0.0.1", port), port)
        running.relay.start(Dialler(), running.reports.put)
        if upstream is not None:
            running.relay.use(upstream)
        return running

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"


class RawClient:
    """Sends and reads lines; only PING is answered by itself."""

    def __init__(self, port: int, timeout: float = 5.0) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout)
        self._held = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, text: str) -> None:
        self.connection.sendall(text.encode())

    def line(self) -> str:
        """The next line; empty at the end of the stream."""
        while b"\r\n" not in self._held:
            chunk = self.connection.recv(65536)
            if not chunk:
                return ""
            self._held += chunk
        line, _, self._held = self._held.partition(b"\r\n")
        if line == b"PING":
            self.send("PONG\r\n")
            return self.line()
        return line.decode()

    def info(self) -> dict[str, Any]:
        """The next line, which must be an INFO."""
        word, _, text = self.line().partition(" ")
        assert word == "INFO"
        info: dict[str, Any] = json.loads(text)
        return info

    def connect(self, **options: Any) -> None:
        """CONNECT and wait for the answer to a PING; other lines in between are an error."""
        self.send(f"CONNECT {json.dumps({'verbose': False, 'protocol': 1, **options})}\r\nPING\r\n")
        line = self.line()
        assert line == "PONG", line


def within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    """Return when the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)
