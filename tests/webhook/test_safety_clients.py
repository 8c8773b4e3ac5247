"""What clients cannot do to the webhook: be slow, be large, be many. The real server on loopback, with short limits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from localcluster.process import free_port
from webhook.http1 import Limits, Request, Response
from webhook.server import Server

LIMITS = Limits(body=1000, head=2000, discarded=4000, request_seconds=0.5, idle_seconds=30.0, connections=20)
POST = b"POST /mutate HTTP/1.1\r\nhost: webhook\r\ncontent-length: %d\r\n\r\n"
GOOD = POST % 4 + b"body"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Echo:
    """Answers with the body it got and remembers what was refused."""

    refusals: list[int] = field(default_factory=list)
    large_answer: bytes = b""

    def handle(self, request: Request) -> Response:
        return Response(200, "text/plain", self.large_answer or request.body)

    def refused(self, status: int, sentence: str) -> None:
        assert sentence
        self.refusals.append(status)


@dataclass
class Running:
    """A server that listens, and its application."""

    server: Server
    application: Echo
    port: int
    opened: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened.append(writer)
        return reader, writer


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    application = Echo()
    running = Running(Server(application, LIMITS), application, free_port())
    await running.server.start("127.0.0.1", running.port)
    yield running
    for writer in running.opened:
        writer.transport.abort()
    await running.server.stop()


async def answer(streams: Streams, request: bytes = GOOD) -> bytes:
    """The answer to a request that the server is to answer with the same four bytes."""
    reader, writer = streams
    writer.write(request)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return head + await reader.readexactly(4)


async def everything(streams: Streams) -> bytes:
    """All that the server says until it closes the connection.

    What a client sends at that very moment makes the kernel reset the connection instead: that ends it as well, but a
    reader that waits for all at once would then keep what came before to itself.
    """
    said = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            while part := await streams[0].read(2**16):
                said += part
    return said


async def dribble(streams: Streams, data: bytes) -> None:
    """Send a byte every tenth of the time that a whole request may take, until the server hangs up."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            if streams[0].at_eof():
                return
            streams[1].write(bytes([byte]))
            await streams[1].drain()
            await asyncio.sleep(LIMITS.request_seconds / 10)


@pytest.mark.parametrize("begun", [b"", POST % 400], ids=["headers", "body"])
async def test_a_client_that_sends_byte_by_byte_is_cut(running: Running, begun: bytes) -> None:
    slow = await running.connect()
    slow[1].write(begun)
    sending = asyncio.create_task(dribble(slow, b"POST /mutate HTTP/1.1\r\nx-endless: " + b"a" * 400))
    assert (await everything(slow)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert running.application.refusals == [408]
    sending.cancel()


async def test_a_client_that_connects_and_says_nothing_is_cut(running: Running) -> None:
    assert await everything(await running.connect()) == b""


async def test_a_client_that_has_asked_may_stay_idle_for_longer(running: Running) -> None:
    good, silent = await running.connect(), await running.connect()
    await answer(good)
    assert await everything(silent) == b""  # so the time of a request is over
    await answer(good)


async def test_a_client_that_does_not_read_its_answers_is_cut(running: Running) -> None:
    running.application.large_answer = b"x" * 2**24
    reader, writer = await running.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(GOOD)
    other = await running.connect()
    running.application.large_answer = b""
    assert await answer(other)
    deadline = asyncio.get_running_loop().time() + 10
    while running.server.connections > 1:
        assert asyncio.get_running_loop().time() < deadline, "the connection was not cut"
        await asyncio.sleep(0.05)
    assert reader.exception() is None


@pytest.mark.parametrize(
    "head",
    [
        b"POST /mutate HTTP/1.1\r\n" + b"x-header: value\r\n" * 200 + b"\r\n",
        b"POST /mutate HTTP/1.1\r\nx-large: " + b"a" * 2000 + b"\r\n\r\n",
        b"POST /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n",
        b"POST /mutate HTTP/1.1\r\nx-endless: " + b"a" * 3000,
    ],
    ids=["many", "large", "path", "endless"],
)
async def test_headers_over_the_limit_get_a_431(running: Running, head: bytes) -> None:
    client = await running.connect()
    client[1].write(head)
    assert (await everything(client)).startswith(b"HTTP/1.1 431 ")
    assert running.application.refusals == [431]


@pytest.mark.parametrize("size", [1001, 4000, 100_000])
async def test_a_body_over_the_limit_gets_a_413_however_large_it_is(running: Running, size: int) -> None:
    client = await running.connect()
    with contextlib.suppress(ConnectionError):
        client[1].write(POST % size + b"a" * min(size, 5000))
        await client[1].drain()
    assert (await everything(client)).startswith(b"HTTP/1.1 413 ")
    assert running.application.refusals == [413]


async def test_many_idle_connections_do_not_keep_others_out_nor_end_those_that_are_used(running: Running) -> None:
    used = await running.connect()
    await answer(used)
    idle = [await running.connect() for _ in range(3 * LIMITS.connections)]
    late = await running.connect()
    await answer(late)
    await answer(used)
    assert running.server.connections <= LIMITS.connections
    assert idle[0][0].at_eof() or await idle[0][0].read() == b""


async def test_requests_sent_at_once_are_answered_in_order(running: Running) -> None:
    reader, writer = await running.connect()
    writer.write(b"".join(POST % 4 + body for body in (b"one.", b"two.", b"six.")))
    for body in (b"one.", b"two.", b"six."):
        assert (await answer((reader, writer), b"")).endswith(body)


async def test_a_client_that_asks_whether_to_continue_is_told_so(running: Running) -> None:
    reader, writer = await running.connect()
    writer.write(b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await answer((reader, writer), b"body")).endswith(b"body")


@pytest.mark.parametrize(
    "request_bytes", [GOOD.replace(b"1.1", b"1.0", 1), GOOD.replace(b"host: webhook", b"connection: close")]
)
async def test_a_client_that_wants_one_answer_gets_one(running: Running, request_bytes: bytes) -> None:
    client = await running.connect()
    client[1].write(request_bytes)
    said = await everything(client)
    assert b"connection: close\r\n" in said
    assert said.endswith(b"body")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00 nonsense\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
)
async def test_nonsense_gets_a_400_and_the_end_of_its_connection(running: Running, nonsense: bytes) -> None:
    client = await running.connect()
    client[1].write(nonsense)
    assert (await everything(client)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    await answer(await running.connect())
