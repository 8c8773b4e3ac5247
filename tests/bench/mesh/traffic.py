"""Sends and receives over TCP as fast as it goes; run in namespaces (`python -m tests.bench.mesh.traffic`).

`receive` takes one connection after the other; each starts with the number of seconds for which data follow. `send`
prints the rate that the receiver saw, in bytes per second.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time

_CHUNK = 1 << 18
_SECONDS = struct.Struct("!d")
_PATIENCE = 20.0


def receive(port: int) -> None:
    """Serve until killed."""
    with socket.create_server(("0.0.0.0", port)) as server:
        print("listening", flush=True)
        while True:
            client, _ = server.accept()
            with client:
                client.settimeout(_PATIENCE)
                client.sendall(_SECONDS.pack(_count(client)))


def _count(client: socket.socket) -> float:
    """Bytes per second until the sender ends its direction."""
    buffer, total, started = bytearray(_CHUNK), 0, time.monotonic()
    while size := client.recv_into(buffer):
        total += size
    return total / (time.monotonic() - started)


def send(address: str, port: int, seconds: float) -> float:
    """Send for so long and return what the receiver saw."""
    data = bytes(_CHUNK)
    with socket.create_connection((address, port), _PATIENCE) as client:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(_SECONDS.size, socket.MSG_WAITALL)
    return float(_SECONDS.unpack(answer)[0])


def main() -> int:
    parser = argparse.ArgumentParser()
    roles = parser.add_subparsers(dest="role", required=True)
    receiver, sender = roles.add_parser("receive"), roles.add_parser("send")
    receiver.add_argument("port", type=int)
    sender.add_argument("address")
    sender.add_argument("port", type=int)
    sender.add_argument("seconds", type=float)
    arguments = parser.parse_args()
    if arguments.role == "receive":
        receive(arguments.port)
    else:
        print(send(arguments.address, arguments.port, arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
