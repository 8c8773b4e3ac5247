"""Answers requests on `time.now` with the time: one of all replicas does."""

import asyncio
import os
from datetime import UTC, datetime

import nats
from nats.aio.msg import Msg


async def answer(message: Msg) -> None:
    """Reply to one request."""
    await message.respond(datetime.now(UTC).isoformat(timespec="seconds").encode())


async def report(error: Exception) -> None:
    """A lost connection is made again by the client; we only say so."""
    print(f"nats: {error}", flush=True)


async def main() -> None:
    """Serve for ever. The client reads the credentials file again whenever it connects."""
    client = await nats.connect(
        os.environ["NATS_URL"], user_credentials=os.environ["NATS_CREDS"], max_reconnect_attempts=-1, error_cb=report
    )
    await client.subscribe("time.now", queue="clocks", cb=answer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
