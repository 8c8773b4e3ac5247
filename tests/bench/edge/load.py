"""Makes load with prepared bytes in processes of their own, so that no client library is what is measured.

Publisher and subscriber are one process each. A subscriber grants the publisher a limited lead, so that the server
never has to cut off a slow consumer; it counts bytes, which all messages have alike, and looks at none of them.
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.bench.edge.wire import BUFFER, PATIENCE, Target, Wire

#: Bytes that are handed to the socket at once.
_BLOCK: Final = 1 << 18
#: Blocks that a publisher may be ahead of its subscriber; far less than the 64 MB that a server keeps for a client.
_LEAD: Final = 48
_END: Final = b"E\r\n"
#: Messages that are published to a stream at once, and that may wait for its answer.
_BATCH: Final = 50
_WINDOW: Final = 500
_PROCESSES: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Load:
    """What passed in one run. `generator_busy`: CPU cores that the busier one of publisher and subscriber used."""

    messages: int
    seconds: float
    generator_busy: float

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds


def throughput(publisher: Target, subscriber: Target, size: int, seconds: float) -> Load:
    """Publish messages of `size` bytes on `live.bench` for so long, and receive all of them."""
    granted, grants = _PROCESSES.Pipe(duplex=False)
    with _Child(_receive, subscriber, size, grants) as receiving:
        receiving.answer()
        with _Child(_send, publisher, size, seconds, granted) as sending:
            began, cpu = sending.answer()
            messages, ended, other = receiving.answer()
    return Load(messages, ended - began, max(cpu, other) / (ended - began))


def latencies(target: Target, size: int, count: int) -> list[float]:
    """Seconds of each of `count` messages, one after the other, from one connection to another one."""
    with _Child(_measure_latencies, target, size, count) as measuring:
        found: list[float] = measuring.answer()
    return found


def store(target: Target, subject: str, size: int, count: int) -> tuple[float, float]:
    """Publish so many messages to a stream, all acknowledged; when the first was sent and the last acknowledged, in
    seconds of the monotonic clock."""
    with _Child(_store, target, subject, size, count) as storing:
        began, ended = storing.answer()
    return began, ended


def alone(certificate: str, key: str, ca: str, size: int, seconds: float) -> Load:
    """The same load from publisher to subscriber over TLS, with no server in between: the limit."""
    granted, grants = _PROCESSES.Pipe(duplex=False)
    with _Child(_receive_alone, certificate, key, size, grants) as receiving:
        port = receiving.answer()
        with _Child(_send_alone, port, ca, size, seconds, granted) as sending:
            began, cpu = sending.answer()
            messages, ended, other = receiving.answer()
    return Load(messages, ended - began, max(cpu, other) / (ended - began))


class _Child:
    """A process that works for us and answers; it is gone after the block."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._answers, answers = _PROCESSES.Pipe(duplex=False)
        self._process = _PROCESSES.Process(target=_begin, args=(work, answers, *arguments), daemon=True)
        self._process.start()
        answers.close()  # ours: so that its end is seen
        self._name = work.__name__

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join(PATIENCE)
        self._answers.close()

    def answer(self) -> Any:
        """The next answer; what went wrong there is raised here, TimeoutError or EOFError when none comes."""
        if not self._answers.poll(60):
            raise TimeoutError(f"no answer from {self._name} for a minute")
        found = self._answers.recv()
        if isinstance(found, RuntimeError):
            raise found
        return found


# ── in processes of their own ───────────────────────────────────────────────────────────────────────────────────────


def _begin(work: Callable[..., None], answers: Connection, *arguments: Any) -> None:
    """Ctrl-C is for the process that started us: it ends its runs in order, and us with them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        work(answers, *arguments)
    except (OSError, EOFError, RuntimeError) as error:
        answers.send(RuntimeError(f"{work.__name__}: {error}"))


def _frame(head: str, size: int, fill: bytes = b"x") -> bytes:
    return f"{head} {size}\r\n".encode() + fill * size + b"\r\n"


def _in_block(size: int) -> int:
    """How many messages are sent at once."""
    return max(1, _BLOCK // (size + 24))


def _send(answers: Connection, target: Target, size: int, seconds: float, granted: Connection) -> None:
    with Wire(target) as wire:
        block = _frame("PUB live.bench", size) * _in_block(size)
        _pour(wire.socket, block, _frame("PUB live.bench", size, b"E"), seconds, granted, answers)
        wire.socket.recv(1)  # stay until we are ended: what has left here has not yet arrived


def _pour(
    to: socket.socket, block: bytes, last: bytes, seconds: float, granted: Connection, answers: Connection
) -> None:
    lead, cpu, began = _LEAD, time.process_time(), time.monotonic()
    deadline = began + seconds
    while time.monotonic() < deadline:
        while lead == 0 or granted.poll():
            granted.recv_bytes()
            lead += 1
        to.sendall(block)
        lead -= 1
    to.sendall(last)
    answers.send((began, time.process_time() - cpu))


def _receive(answers: Connection, target: Target, size: int, grants: Connection) -> None:
    with Wire(target) as wire:
        wire.subscribe("live.bench")
        answers.send(None)
        _drain(wire.socket, len(_frame("MSG live.bench 1", size)), _in_block(size), grants, answers)


def _drain(source: socket.socket, frame: int, in_block: int, grants: Connection, answers: Connection) -> None:
    """Read until the last message; its filling ends with another letter."""
    buffer, tail, total, granted = memoryview(bytearray(BUFFER)), b"", 0, 0
    cpu = time.process_time()
    while _END not in tail:
        count = source.recv_into(buffer)
        if not count:
            raise EOFError("the server has ended the connection")
        total += count
        tail = (tail + bytes(buffer[max(0, count - 16) : count]))[-16:]
        while (granted + 1) * in_block * frame <= total:
            granted += 1
            grants.send_bytes(b"+")
    answers.send((total // frame, time.monotonic(), time.process_time() - cpu))


def _measure_latencies(answers: Connection, target: Target, size: int, count: int) -> None:
    message, expected = _frame("PUB live.bench", size), len(_frame("MSG live.bench 1", size))
    found, buffer = [], memoryview(bytearray(BUFFER))
    with Wire(target) as subscriber, Wire(target) as publisher:
        subscriber.subscribe("live.bench")
        for number in range(count + 100):
            began, left = time.perf_counter(), expected
            publisher.send(message)
            while left > 0:
                received = subscriber.socket.recv_into(buffer)
                # The server's PING comes between messages, at most once in a few seconds.
                left -= received - len(b"PING\r\n") * bytes(buffer[:received]).count(b"PING\r\n")
            if number >= 100:
                found.append(time.perf_counter() - began)
    answers.send(found)


def _store(answers: Connection, target: Target, subject: str, size: int, count: int) -> None:
    batch = _frame(f"PUB {subject} _INBOX.bench.1", size) * _BATCH
    mark, sent, acknowledged, tail = b'"seq":', 0, 0, b""
    with Wire(target) as wire:
        wire.subscribe("_INBOX.bench.*")
        began = time.monotonic()
        while acknowledged < count:
            while sent < count and sent - acknowledged <= _WINDOW - _BATCH:
                wire.send(batch)
                sent += _BATCH
            data = tail + wire.socket.recv(BUFFER)
            if len(data) == len(tail) or b'"error"' in data or b"-ERR" in data:
                raise RuntimeError(f"not stored: {data[-500:].decode(errors='replace')}")
            acknowledged += data.count(mark)
            tail = data[-(len(mark) - 1) :]
        answers.send((began, time.monotonic()))


def _receive_alone(answers: Connection, certificate: str, key: str, size: int, grants: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        answers.send(listener.getsockname()[1])
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as connection:
            _drain(connection, len(_frame("PUB live.bench", size)), _in_block(size), grants, answers)


def _send_alone(answers: Connection, port: int, ca: str, size: int, seconds: float, granted: Connection) -> None:
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    context = ssl.create_default_context(cadata=ca)
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        block = _frame("PUB live.bench", size) * _in_block(size)
        _pour(connection, block, _frame("PUB live.bench", size, b"E"), seconds, granted, answers)
        connection.recv(1)
