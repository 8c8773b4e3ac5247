"""The health server, spoken to with raw HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from edgefarm.pages import Page
from reconciler.health import HealthServer
from reconciler.metrics import CONTENT_TYPE, Metrics


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    metrics = Metrics()
    metrics.observe(depth=lambda: 3, leading=lambda: True)
    server = HealthServer(
        {
            "/healthz": lambda: Page.text("ok"),
            "/readyz": lambda: Page.text("waiting for something", ok=False),
            "/metrics": lambda: Page(metrics.render(), content_type=CONTENT_TYPE),
        }
    )
    await server.start("127.0.0.1", 0)
    yield server
    await server.close()


async def ask(server: HealthServer, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request)
    try:
        return (await asyncio.wait_for(reader.read(), 10)).decode()
    except ConnectionResetError:  # what a server's kernel sends when it closes on unread data
        return ""
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_pages_are_served_with_their_status(server: HealthServer) -> None:
    healthy = await ask(server, b"GET /healthz?verbose HTTP/1.1\r\nHost: x\r\n\r\n")
    assert healthy.startswith("HTTP/1.1 200 OK\r\n")
    assert healthy.endswith("\r\n\r\nok\n")
    assert (await ask(server, b"GET /readyz HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 503 ")


async def test_metrics_are_served_in_the_text_format(server: HealthServer) -> None:
    answer = await ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert "text/plain; version=" in answer
    assert "edgefarm_queue_depth 3.0" in answer
    assert "edgefarm_leader 1.0" in answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /elsewhere HTTP/1.1\r\n\r\n", "404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", "405"),
        (b"nonsense\r\n\r\n", "400"),
        (b"\x16\x03\x01 \xff\xfe\r\n\r\n", "400"),
    ],
)
async def test_anything_else_gets_a_4xx(server: HealthServer, request_: bytes, status: str) -> None:
    assert (await ask(server, request_)).split(" ")[1] == status


async def test_a_request_that_is_too_long_ends_the_connection_and_the_next_one_is_served(server: HealthServer) -> None:
    assert await ask(server, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n") == ""
    assert "200 OK" in await ask(server, b"GET /healthz HTTP/1.1\r\n\r\n")
