"""Subscribes `sensor.>` and shows what came at http://HOST:8080/ as JSON: a workload in mode `nats`.

Connects again when the sidecar renewed the credentials, the new connection first, so that no message falls between.
"""

import asyncio
import json
import os
import ssl
from pathlib import Path

import nats
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

CREDENTIALS = Path(os.environ["NATS_CREDS"])
TLS = ssl.create_default_context(cafile=os.environ["NATS_CA"]) if "NATS_CA" in os.environ else None
SUBJECT = os.environ.get("SUBJECT", "sensor.>")
received: dict[str, set[int]] = {}


async def on_message(message: Msg) -> None:
    """Remember each number once: a sender that lost its connection sends the last one again."""
    received.setdefault(message.subject, set()).add(json.loads(message.data)["number"])


async def subscribe() -> nats.NATS:
    """A new connection that already receives."""
    client = await nats.connect(
        os.environ["NATS_URL"].split(","),
        user_credentials=str(CREDENTIALS),
        tls=TLS,
        allow_reconnect=False,
    )
    await client.subscribe(SUBJECT, cb=on_message)
    await client.flush(timeout=5)
    return client


async def receive() -> None:
    """Receive for ever."""
    while True:
        try:
            client, version = await subscribe(), CREDENTIALS.stat().st_mtime_ns
            print("connected", flush=True)
            while client.is_connected:
                await asyncio.sleep(0.2)
                if CREDENTIALS.stat().st_mtime_ns != version:
                    version, old, client = CREDENTIALS.stat().st_mtime_ns, client, await subscribe()
                    await old.drain()
            print("connection lost", flush=True)
        except (NatsError, OSError, TimeoutError) as error:
            print(f"not connected: {error or type(error).__name__}", flush=True)
            await asyncio.sleep(0.2)


async def show(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer any HTTP request with the counts and the gaps per subject."""
    await reader.readuntil(b"\r\n\r\n")
    body = json.dumps(
        {
            subject: {
                "count": len(numbers),
                "first": min(numbers),
                "last": max(numbers),
                "missing": max(numbers) - min(numbers) + 1 - len(numbers),
            }
            for subject, numbers in received.items()
        }
    ).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
    writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    writer.close()


async def main() -> None:
    """Serve and receive."""
    server = await asyncio.start_server(show, os.environ.get("HOST", "0.0.0.0"), 8080)
    async with server:
        await receive()


if __name__ == "__main__":
    asyncio.run(main())
