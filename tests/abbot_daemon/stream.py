"""A counted stream of datagrams between two hosts, run in their namespaces: `serve ADDRESS` echoes what
`stream ADDRESS` sends; the latter prints a line `<number> <seconds>` for each answer."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

PORT = 7007
INTERVAL = 0.05


def serve(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind((address, PORT))
        print("ready", flush=True)
        while True:
            with contextlib.suppress(OSError):
                data, sender = echo.recvfrom(100)
                echo.sendto(data, sender)


def stream(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        number = 0
        while True:
            due = time.monotonic() + INTERVAL
            number += 1
            with contextlib.suppress(OSError):
                sender.sendto(str(number).encode(), (address, PORT))
            while (left := due - time.monotonic()) > 0:
                sender.settimeout(left)
                with contextlib.suppress(OSError):
                    print(sender.recv(100).decode(), time.monotonic(), flush=True)


if __name__ == "__main__":
    {"serve": serve, "stream": stream}[sys.argv[1]](sys.argv[2])
