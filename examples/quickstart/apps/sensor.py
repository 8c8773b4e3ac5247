"""Publishes a rising number on `sensor.<pod>` ten times a second: a workload with its own NATS client (mode `nats`).

The webhook set NATS_URL and NATS_CREDS (and NATS_CA where the client connects to the hub itself, over TLS); the client
reads the credentials file again whenever it connects, so renewed credentials need no code. A number counts as sent when
the server has answered: after a cut connection it is sent again, so nothing is lost.
"""

import asyncio
import json
import os
import ssl

import nats
from nats.errors import Error as NatsError

SUBJECT = f"sensor.{os.environ['HOSTNAME']}"
TLS = ssl.create_default_context(cafile=os.environ["NATS_CA"]) if "NATS_CA" in os.environ else None
INTERVAL = float(os.environ.get("INTERVAL", "0.1"))


async def connect() -> nats.NATS:
    """Connect as the sidecar's credentials allow."""

    async def report(error: Exception) -> None:
        print(f"nats: {error}", flush=True)

    return await nats.connect(
        os.environ["NATS_URL"].split(","),
        user_credentials=os.environ["NATS_CREDS"],
        tls=TLS,
        allow_reconnect=False,
        error_cb=report,
    )


async def settle(client: nats.NATS) -> None:
    """Return when the server has taken everything: nats-py's flush pings before it sends, so the second one counts."""
    await client.flush(timeout=2)
    await client.flush(timeout=2)


async def main() -> None:
    """Publish for ever; connect again after every failure."""
    number = 0
    while True:
        try:
            client = await connect()
            print("connected", flush=True)
            while True:
                await client.publish(SUBJECT, json.dumps({"number": number}).encode())
                await settle(client)
                number += 1
                await asyncio.sleep(INTERVAL)
        except (NatsError, OSError, TimeoutError) as error:
            print(f"not connected: {error or type(error).__name__}", flush=True)
            await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
