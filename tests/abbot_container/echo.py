"""Who am I to you: a TCP listener tells each caller the address that it came from.

python -m tests.abbot_container.echo listen PORT
python -m tests.abbot_container.echo ask ADDRESS PORT      what the listener said, or nothing
"""

from __future__ import annotations

import socket
import sys


def listen(port: int) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("listening", flush=True)
        while True:
            connection, peer = server.accept()
            with connection:
                connection.sendall(peer[0].removeprefix("::ffff:").encode())


def ask(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=3) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen(int(sys.argv[2]))
    else:
        print(ask(sys.argv[2], int(sys.argv[3])), end="")
