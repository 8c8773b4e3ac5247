"""Forwarded connections: every byte arrives in order, and ends and resets are handed on."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from localcluster.network.forward import Address, Listener
from localcluster.process import free_port

HOST = "127.0.0.1"
BIG = bytes(range(256)) * (64 * 1024)  # 16 MiB, more than all buffers on the way

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def forwarded(handler: Handler) -> AsyncIterator[tuple[Address, Listener]]:
    """A server with this handler, and a listener that forwards to it for clients of no node."""
    server = await asyncio.start_server(handler, HOST, 0)
    target: Address = server.sockets[0].getsockname()
    address = HOST, free_port(HOST)
    listener = Listener.open(address, lambda *_: "edge", lambda _: target)
    try:
        yield address, listener
    finally:
        listener.abort()
        server.close()


async def test_a_large_amount_arrives_complete_and_in_order_both_ways_at_once() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async with forwarded(echo) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(BIG)
        writer.write_eof()
        back = await asyncio.wait_for(reader.read(), 30)
        assert hashlib.sha256(back).digest() == hashlib.sha256(BIG).digest()
        writer.close()


async def test_an_answer_still_comes_after_the_client_has_ended_its_own_direction() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()  # to the end
        writer.write(b"%d" % len(request))
        writer.close()

    async with forwarded(count) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"question")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"8"
        writer.close()


async def test_a_slow_reader_gets_everything_although_the_sender_has_gone() -> None:
    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BIG)
        await writer.drain()
        writer.close()

    async with forwarded(send) as (address, _):
        reader, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write_eof()
        received = 0
        while data := await asyncio.wait_for(reader.read(4096), 5):
            received += len(data)
        assert received == len(BIG)
        writer.close()


async def test_a_reset_is_handed_on_as_a_reset() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        plain = writer.get_extra_info("socket")
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with forwarded(reset) as (address, _):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_connections_of_one_node_can_be_broken_and_new_ones_are_served() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()
        writer.close()

    async with forwarded(greet) as (address, listener):
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.readline() == b"hello\n"
        listener.reset("another")
        listener.reset("edge")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.readline() == b"hello\n"
        writer.close()


@pytest.mark.parametrize("target", [None, (HOST, 1)])
async def test_a_connection_without_a_way_to_go_is_reset(target: Address | None) -> None:
    address = HOST, free_port(HOST)
    listener = Listener.open(address, lambda *_: None, lambda _: target)
    try:
        with pytest.raises(ConnectionResetError):  # while it connects, or right after
            await _read_all(address)
    finally:
        listener.abort()


async def _read_all(address: Address) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()
