"""The HTTP client and the health port against sockets that behave well and badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from localcluster.process import free_port
from sidecar.health import HealthServer, Page, fetch
from sidecar.http1 import Connection, ProtocolError

Serve = Callable[[bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answers the first request of each connection with the given bytes and then closes it; returns the port."""
    listeners: list[socket.socket] = []

    def start(answer: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\ncontent-length:0\r\n\r\n", 403, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
            200,
            b"ab0123456789",
        ),
    ],
    ids=["length", "no content", "until the end", "continue", "chunks"],
)
def test_an_answer_is_read_to_its_end_and_no_further(serve: Serve, answer: bytes, status: int, body: bytes) -> None:
    with closing(Connection("127.0.0.1", serve(answer), 5)) as connection:
        assert connection.request("GET", "/") == (status, body)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-server\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 9000,
    ],
    ids=["nothing", "ssh", "status", "negative", "huge", "short", "chunk size", "chunk end", "headers", "line"],
)
def test_garbage_is_an_error_and_closes_the_connection(serve: Serve, answer: bytes) -> None:
    connection = Connection("127.0.0.1", serve(answer), 5)
    with pytest.raises((ProtocolError, OSError)):
        connection.request("GET", "/")
    assert not connection.open


def test_a_server_that_is_silent_is_given_up_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(TimeoutError):
        Connection("127.0.0.1", listener.getsockname()[1], 0.2).request("GET", "/")


def test_a_header_cannot_smuggle_another_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(ProtocolError, match="line break"):
        Connection("127.0.0.1", listener.getsockname()[1], 1).request("GET", "/", headers={"X": "a\r\nY: b"})


@pytest.fixture
def health() -> Iterator[int]:
    """A health server with one page; its port."""
    port = free_port()
    server = HealthServer("127.0.0.1", port, lambda path: Page(200, "ok\n") if path == "/healthz" else None)
    server.start()
    yield port
    server.close()


def test_the_health_port_serves_its_pages_and_nothing_else(health: int) -> None:
    assert fetch("127.0.0.1", health, "/healthz?verbose", 5) == Page(200, "ok\n")
    assert fetch("127.0.0.1", health, "/etc/passwd", 5).status == 404
    with closing(Connection("127.0.0.1", health, 5)) as connection:
        assert connection.request("POST", "/healthz", b"")[0] == 405


@pytest.mark.parametrize("request_bytes", [b"\r\n\r\n", b"\x16\x03\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"x" * 9000])
def test_garbage_on_the_health_port_is_answered_with_400(health: int, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", health), 5) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_slow_clients_do_not_keep_the_health_port_from_others(health: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", health), 5) for _ in range(3)]
    assert fetch("127.0.0.1", health, "/healthz", 5).status == 200
    for connection in slow:
        connection.close()
