"""A counted one-way stream of datagrams: `send ADDRESS PORT COUNT INTERVAL`, or `receive ADDRESS PORT COUNT`."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

_SILENCE = 5.0


def main() -> None:
    """The receiver prints how many different datagrams came before there was silence."""
    role, address, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        if role == "send":
            start = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, start + number * float(sys.argv[5]) - time.monotonic()))
                stream.sendto(str(number).encode(), (address, port))
            return
        stream.bind((address, port))
        stream.settimeout(_SILENCE)
        seen: set[bytes] = set()
        with contextlib.suppress(TimeoutError):
            while len(seen) < count:
                seen.add(stream.recv(64))
        print(len(seen))


if __name__ == "__main__":
    main()
