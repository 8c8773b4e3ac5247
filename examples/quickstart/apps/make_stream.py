"""Creates the JetStream stream READINGS for `reading.>` and ends: what Dapr's pubsub.jetstream stores into."""

import asyncio
import os
import ssl

import nats
from nats.js.api import StreamConfig


async def main() -> None:
    """Create the stream; an equal one that exists is fine."""
    client = await nats.connect(
        os.environ["NATS_URL"].split(","),
        user_credentials=os.environ["NATS_CREDS"],
        tls=ssl.create_default_context(cafile=os.environ["NATS_CA"]),
    )
    stream = await client.jetstream().add_stream(
        StreamConfig(name="READINGS", subjects=["reading.>"], max_bytes=10_000_000)
    )
    print(f"stream {stream.config.name} stores {stream.config.subjects}", flush=True)
    await client.close()


if __name__ == "__main__":
    asyncio.run(main())
