"""Sends ICMP or ICMPv6 echo requests and prints how many were answered: address, interface or '', count, interval."""

from __future__ import annotations

import select
import socket
import struct
import sys
import time


def main() -> None:
    """Every request is sent in its own time, whatever has become of the earlier ones."""
    address, interface, count, interval = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    ipv6 = ":" in address
    family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    target: tuple[str | int, ...] = (address, 0)
    if ipv6:
        target = (address, 0, 0, socket.if_nametoindex(interface) if interface else 0)
    identifier = time.monotonic_ns() & 0xFFFF
    answered: set[int] = set()
    start = time.monotonic()
    with socket.socket(family, socket.SOCK_RAW, protocol) as echo:
        sent = 0
        while len(answered) < count:
            now = time.monotonic() - start
            if sent < count and now >= sent * interval:
                echo.sendto(_request(128 if ipv6 else 8, identifier, sent), target)
                sent += 1
                continue
            wait = start + (sent * interval if sent < count else (count - 1) * interval + 2.0) - time.monotonic()
            if not select.select([echo], [], [], max(0.0, wait))[0]:
                if sent == count:
                    break
                continue
            packet = echo.recv(2048)[0 if ipv6 else 20 :]
            kind, _, _, number, sequence = struct.unpack("!BBHHH", packet[:8])
            if kind == (129 if ipv6 else 0) and number == identifier:
                answered.add(sequence)
    print(len(answered))


def _request(kind: int, identifier: int, sequence: int) -> bytes:
    header = struct.pack("!BBHHH", kind, 0, 0, identifier, sequence)
    total = sum(struct.unpack("!4H", header))
    total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!BBHHH", kind, 0, ~(total + (total >> 16)) & 0xFFFF, identifier, sequence)


if __name__ == "__main__":
    main()
