"""The relay beside a direct connection to the same nats-server over TLS: throughput and round-trip time.

Prints JSON lines (docs/architecture.md). Publisher and subscriber write and read the protocol by hand, so that a client
library is not what is measured; the figures are the medians of several runs, ours and the direct ones in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import Authority, find_program

_SIZES = {16: 200_000, 1024: 100_000, 65536: 4_000}
_ROUND_TRIPS = 3000


@dataclass(frozen=True)
class Way:
    """How a client reaches the server: a port, and TLS where that is the client's work."""

    port: int
    tls: ssl.SSLContext | None

    def connect(self) -> socket.socket:
        """A connection that has logged in."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _until(connection, b"\r\n")
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_hostname="127.0.0.1")
        connection.sendall(b'CONNECT {"verbose":false,"protocol":0}\r\nPING\r\n')
        _until(connection, b"PONG\r\n")
        return connection


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="edgefarm-bench-") as name:
        folder = Path(name)
        authority = Authority.create(folder / "pki")
        server, server_port = _start_server(folder, authority)
        relay, relay_port = _start_relay(server_port, authority)
        try:
            direct = Way(server_port, ssl.create_default_context(cadata=authority.pem))
            _compare(Way(relay_port, None), direct, runs)
        finally:
            relay.terminate()
            relay.wait()
            server.stop()


def _compare(relayed: Way, direct: Way, runs: int) -> None:
    for size, count in _SIZES.items():
        _report(
            f"publish and receive, {size} bytes",
            "messages/s",
            runs,
            lambda way, s=size, c=count: _rate(way, s, c),
            relayed,
            direct,
        )
    _report("ping and pong, median", "us", runs, lambda way: _round_trip(way, 0.5), relayed, direct)
    _report("ping and pong, p99", "us", runs, lambda way: _round_trip(way, 0.99), relayed, direct)


def _report(case: str, unit: str, runs: int, measure: Callable[[Way], float], relayed: Way, direct: Way) -> None:
    ours, peers = [], []
    for _ in range(runs):
        ours.append(measure(relayed))
        peers.append(measure(direct))
    value, peer = statistics.median(ours), statistics.median(peers)
    line = {
        "bench": "relay",
        "case": case,
        "metric": "rate" if unit == "messages/s" else "time",
        "unit": unit,
        "value": round(value, 1),
        "peer": "direct, TLS",
        "peer_value": round(peer, 1),
        "ratio": round(value / peer, 3),
    }
    print(json.dumps(line), flush=True)


def _rate(way: Way, size: int, count: int) -> float:
    """Messages per second from one connection through the server to another one."""
    with way.connect() as subscriber, way.connect() as publisher:
        subscriber.sendall(b"SUB x 1\r\nPING\r\n")
        _until(subscriber, b"PONG\r\n")
        message = b"PUB x %d\r\n%s\r\n" % (size, b"x" * size)
        block = message * max(1, 65536 // len(message))
        blocks = max(1, count * len(message) // len(block))
        expected = blocks * (len(block) // len(message)) * (len(b"MSG x 1 %d\r\n" % size) + size + 2)
        sender = threading.Thread(target=lambda: [publisher.sendall(block) for _ in range(blocks)])
        began, received, buffer = time.perf_counter(), 0, bytearray(1 << 18)
        sender.start()
        while received < expected:
            received += subscriber.recv_into(buffer)
        elapsed = time.perf_counter() - began
        sender.join()
        return blocks * (len(block) // len(message)) / elapsed


def _round_trip(way: Way, quantile: float) -> float:
    with way.connect() as connection:
        times = []
        for _ in range(_ROUND_TRIPS):
            began = time.perf_counter()
            connection.sendall(b"PING\r\n")
            _until(connection, b"PONG\r\n")
            times.append(time.perf_counter() - began)
        return sorted(times)[int(len(times) * quantile)] * 1e6


def _until(connection: socket.socket, end: bytes) -> None:
    data = b""
    while not data.endswith(end):
        data += connection.recv(65536)


def _start_server(folder: Path, authority: Authority) -> tuple[LocalProcess, int]:
    port = free_port()
    certificate, key = authority.issue("nats", ["127.0.0.1"])
    config = folder / "nats.conf"
    config.write_text(
        f'listen: 127.0.0.1:{port}\nmax_pending: 1GB\nping_interval: "1h"\n'
        f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'
    )
    process = LocalProcess.start("nats", [find_program("nats-server"), "-c", str(config)], log=folder / "nats.log")
    process.wait_until(lambda: accepts("127.0.0.1", port), "listening")
    return process, port


def _start_relay(server_port: int, authority: Authority) -> tuple[subprocess.Popen[bytes], int]:
    """A relay in a process of its own, as in a pod."""
    port = free_port()
    program = (
        "import os, signal\n"
        "from sidecar.relay import Relay\n"
        "from sidecar.route import Place\n"
        "from sidecar.upstream import Dialler, Upstream\n"
        f"relay = Relay('127.0.0.1', {port})\n"
        "relay.start(Dialler(), print)\n"
        f"relay.use(Upstream(Place.HUB, ('tls://127.0.0.1:{server_port}',), os.environ['CA']))\n"
        "signal.pause()\n"
    )
    environment = {**os.environ, "CA": authority.pem}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    while not accepts("127.0.0.1", port):
        time.sleep(0.01)
    return process, port


if __name__ == "__main__":
    main()
