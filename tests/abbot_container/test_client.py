"""The client of the daemon's raw socket, beside servers that behave well and badly."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from abbot.client import MAX_FRAME, DaemonUnreachable, RequestFailed, call, raw_socket

Answer = Callable[[socket.socket], None]


@pytest.fixture
def serve(work: Path) -> Iterator[Callable[[Answer], str]]:
    """Serve one connection by a function; the path is the daemon's socket."""
    path = str(work / "abbot.sock")
    threads: list[threading.Thread] = []

    def start(answer: Answer) -> str:
        server = socket.socket(socket.AF_UNIX)
        server.bind(raw_socket(path))
        server.listen()

        def run() -> None:
            with server, server.accept()[0] as connection:
                answer(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return path

    yield start
    for thread in threads:
        thread.join(10)


def frame(status: int, body: bytes, length: int | None = None) -> bytes:
    return bytes([status]) + (len(body) if length is None else length).to_bytes(4, "big") + body


def request(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        return stream.read(int.from_bytes(stream.read(4), "big"))


def test_a_request_and_its_answer_cross_in_frames(serve: Callable[[Answer], str]) -> None:
    def echo(connection: socket.socket) -> None:
        for byte in frame(0, request(connection)[::-1]):
            connection.sendall(bytes([byte]))

    assert call(serve(echo), b"abc", timeout=5) == b"cba"


def test_the_daemons_refusal_is_its_own_sentence(serve: Callable[[Answer], str]) -> None:
    path = serve(lambda connection: connection.sendall(frame(1, "the key is wrong \u2014 sorry".encode())))
    with pytest.raises(RequestFailed, match="the key is wrong \u2014 sorry"):
        call(path, b"", timeout=5)


def test_a_refusal_is_heard_although_the_request_was_not_read(serve: Callable[[Answer], str]) -> None:
    path = serve(lambda connection: connection.sendall(frame(1, b"too large")))
    with pytest.raises((RequestFailed, DaemonUnreachable)):
        call(path, bytes(MAX_FRAME), timeout=5)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"", "closed the connection before it had answered"),
        (frame(0, b"abc", 10), "closed the connection before it had answered"),
        (frame(7, b""), "does not speak like an abbot daemon"),
        (frame(0, b"", MAX_FRAME + 1), "does not speak like an abbot daemon"),
    ],
)
def test_a_broken_answer_is_told(serve: Callable[[Answer], str], answer: bytes, complaint: str) -> None:
    def broken(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(answer)

    with pytest.raises(DaemonUnreachable, match=complaint):
        call(serve(broken), b"abc", timeout=5)


def test_a_daemon_that_is_silent_or_slow_is_left_in_time(serve: Callable[[Answer], str]) -> None:
    done = threading.Event()

    def drip(connection: socket.socket) -> None:
        connection.sendall(frame(0, b"", 1000))
        while not done.wait(0.05):
            connection.sendall(b"x")

    try:
        with pytest.raises(DaemonUnreachable, match=r"did not answer on .*\.raw within 0\.3 s"):
            call(serve(drip), b"", timeout=0.3)
    finally:
        done.set()


def test_an_absent_daemon_and_too_large_a_request_are_told(work: Path) -> None:
    with pytest.raises(DaemonUnreachable, match=r"cannot be reached on .*\.raw: No such file .*; start `abbot daemon`"):
        call(str(work / "abbot.sock"), b"", timeout=1)
    with pytest.raises(DaemonUnreachable, match="cannot be reached"):
        call(str(work / ("long" * 50)), b"", timeout=1)
    with pytest.raises(RequestFailed, match="takes 16777216 at most"):
        call(str(work / "abbot.sock"), bytes(MAX_FRAME + 1), timeout=1)
