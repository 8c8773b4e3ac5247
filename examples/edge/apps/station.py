"""A station on a node (mode `nats`): publishes numbered readings when told to, and counts what its neighbours say.

It knows nothing of leafs and uplinks: the sidecar's relay on NATS_URL leads to the leaf of the node, else to the main
NATS. A reading counts as published when a stream has stored it; its message id lets the stream drop what is sent twice.

    POST /publish?count=100    store so many readings on `sensor.<node>`; answers when all are stored
    POST /fill                 store kilobytes on `local.fill` until a stream refuses one
    POST /say                  one message on `local.<node>`
    GET  /                     {"connected", "published", "heard"}
"""

import asyncio
import json
import os
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import nats
from nats.errors import Error as NatsError
from nats.js.errors import APIError

NODE = os.environ["NODE"]
HOST = os.environ["HOST"]
#: Readings that wait for the stream's answer at the same time.
WINDOW = 200


class Station:
    """The connection, and what was published and heard through it."""

    def __init__(self) -> None:
        self.client: nats.NATS | None = None
        self.published = 0
        self.heard: Counter[str] = Counter()

    async def stay_connected(self) -> None:
        """Connect, listen to the neighbours, and begin again when the connection is lost."""
        while True:
            lost = asyncio.Event()

            async def end(lost: asyncio.Event = lost) -> None:
                lost.set()

            try:
                self.client = await nats.connect(
                    os.environ["NATS_URL"].split(","),
                    user_credentials=os.environ["NATS_CREDS"],
                    allow_reconnect=False,
                    closed_cb=end,
                    error_cb=report,
                )
                await self.client.subscribe("local.>", cb=self.hear)
                print("connected", flush=True)
                await lost.wait()
            except (NatsError, OSError, TimeoutError) as error:
                print(f"not connected: {error or type(error).__name__}", flush=True)
            self.client = None
            await asyncio.sleep(0.2)

    async def hear(self, message: nats.aio.msg.Msg) -> None:
        """Count what a neighbour said."""
        self.heard[message.subject] += 1

    async def publish(self, count: int) -> None:
        """Store so many readings, in order. Those that may not have been stored are sent again, from the first on."""
        last = self.published + count
        while self.published < last:
            numbers = range(self.published, min(self.published + WINDOW, last))
            outcomes = await asyncio.gather(*map(self.store, numbers))
            self.published += next((index for index, stored in enumerate(outcomes) if not stored), len(outcomes))
            if not all(outcomes):
                await asyncio.sleep(0.2)

    async def store(self, number: int) -> bool:
        """Publish one reading; whether a stream has it. RuntimeError when the stream does not take it."""
        body = json.dumps({"node": NODE, "number": number}).encode()
        try:
            if self.client is None:
                return False
            stream = self.client.jetstream()
            await stream.publish(f"sensor.{NODE}", body, timeout=5, headers={"Nats-Msg-Id": f"{NODE}-{number}"})
        except APIError as error:
            raise RuntimeError(error.description) from error  # it is full, for example
        except (NatsError, OSError, TimeoutError):
            return False
        return True

    async def fill(self) -> dict[str, object]:
        """Publish until a stream refuses, and say why it does."""
        for number in range(10_000):
            if self.client is None:
                return {"error": "not connected", "stored": number}
            try:
                await self.client.jetstream().publish("local.fill", bytes(1000), timeout=5)
            except APIError as error:
                return {"refused": error.description, "stored": number}
            except (NatsError, OSError, TimeoutError) as error:
                return {"error": str(error) or type(error).__name__, "stored": number}
        return {"error": "no stream refused", "stored": 10_000}

    async def answer(self, method: str, target: str) -> dict[str, object]:
        """One request of the page."""
        parts = urlsplit(target)
        if method == "POST" and parts.path == "/publish":
            try:
                await self.publish(int(parse_qs(parts.query)["count"][0]))
            except RuntimeError as error:
                return {"error": str(error), "published": self.published}
        elif method == "POST" and parts.path == "/fill":
            return await self.fill()
        elif method == "POST" and parts.path == "/say" and self.client is not None:
            await self.client.publish(f"local.{NODE}", b"hello")
        return {
            "connected": self.client is not None and self.client.is_connected,
            "published": self.published,
            "heard": dict(self.heard),
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One HTTP request; just enough for curl."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.decode().split(" ", 2)
        body = json.dumps(await self.answer(method, target)).encode()
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
        writer.write(start + str(len(body)).encode() + b"\r\n\r\n" + body)
        await writer.drain()
        writer.close()


async def report(error: Exception) -> None:
    """Print what the client says."""
    print(f"nats: {error}", flush=True)


async def main() -> None:
    """Serve the page and stay connected."""
    station = Station()
    server = await asyncio.start_server(station.serve, HOST, 8080)
    async with server:
        await station.stay_connected()


if __name__ == "__main__":
    asyncio.run(main())
