"""Asks for the time every second and prints the answer."""

import asyncio
import os

import nats
from nats.errors import Error as NatsError


async def report(error: Exception) -> None:
    """A lost connection is made again by the client; we only say so."""
    print(f"nats: {error}", flush=True)


async def main() -> None:
    """Ask for ever."""
    client = await nats.connect(
        os.environ["NATS_URL"], user_credentials=os.environ["NATS_CREDS"], max_reconnect_attempts=-1, error_cb=report
    )
    while True:
        try:
            print((await client.request("time.now", timeout=2)).data.decode(), flush=True)
        except (NatsError, TimeoutError) as error:  # no clock is up, or the connection is being made again
            print(f"no answer: {error or type(error).__name__}", flush=True)
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main())
