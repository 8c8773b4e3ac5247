"""Sends ICMP echo requests and says what was answered; run in a namespace (`python -m localcluster.demo.mesh.echo`).

One JSON object is printed at the end: for each address `sent`, `answered`, `first` (when the first answer came, by the
monotonic clock), `longestGap` (seconds without an answer after that) and `median` round trip (seconds). SIGTERM is the
end of a long run.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import signal
import socket
import statistics
import struct
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise

_REQUEST, _REPLY = 8, 0
#: Type, code, checksum, identifier, number.
_HEADER = struct.Struct("!BBHHH")
_LENGTH = 56


@dataclass
class Seen:
    """What came of the requests to one address."""

    sent: dict[int, float] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)

    def result(self, now: float) -> dict[str, float | int | None]:
        """The object of the module's docstring."""
        arrivals = sorted(self.answered.values())
        gaps = [later - earlier for earlier, later in pairwise([*arrivals, now])]
        trips = [self.answered[number] - self.sent[number] for number in self.answered]
        return {
            "sent": len(self.sent),
            "answered": len(self.answered),
            "first": min(arrivals, default=None),
            "longestGap": round(max(gaps), 3) if gaps else None,
            "median": round(statistics.median(trips), 6) if trips else None,
        }


class Echo:
    """One raw socket that asks several addresses in turn."""

    def __init__(self, addresses: list[str]) -> None:
        self.seen = {address: Seen() for address in addresses}
        self._identifier = os.getpid() & 0xFFFF
        self._plain = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._number = 0

    def ask(self) -> None:
        """One request to every address; one that cannot be sent counts as unanswered."""
        for address, seen in self.seen.items():
            self._number = (self._number + 1) & 0xFFFF
            seen.sent[self._number] = time.monotonic()
            try:
                self._plain.sendto(_packet(self._identifier, self._number), (address, 0))
            except OSError:
                continue

    def listen(self, seconds: float) -> None:
        """Take answers for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._plain.settimeout(left)
            try:
                packet, (address, _) = self._plain.recvfrom(2048)
            except TimeoutError:
                return
            self._take(packet, address)

    def complete(self) -> bool:
        """Whether every request was answered."""
        return all(len(seen.answered) == len(seen.sent) for seen in self.seen.values())

    def _take(self, packet: bytes, address: str) -> None:
        start = (packet[0] & 0x0F) * 4
        kind, _, _, identifier, number = _HEADER.unpack_from(packet, start)
        seen = self.seen.get(address)
        if kind == _REPLY and identifier == self._identifier and seen is not None and number in seen.sent:
            seen.answered.setdefault(number, time.monotonic())


def _packet(identifier: int, number: int) -> bytes:
    body = bytes(_LENGTH)
    header = _HEADER.pack(_REQUEST, 0, 0, identifier, number)
    return _HEADER.pack(_REQUEST, 0, _checksum(header + body), identifier, number) + body


def _checksum(data: bytes) -> int:
    """RFC 1071, over an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def main() -> int:
    """The exit status is 0 when every address answered at least once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="+", type=lambda text: str(ipaddress.IPv4Address(text)))
    parser.add_argument("--count", type=int, default=3, help="requests to each address")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between them")
    parser.add_argument("--wait", type=float, default=1.0, help="seconds for the last answers")
    arguments = parser.parse_args()
    echo, stopped = Echo(arguments.address), False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    for _ in range(arguments.count):
        if stopped:
            break
        echo.ask()
        echo.listen(arguments.every)
    until = time.monotonic() + arguments.wait
    while not echo.complete() and time.monotonic() < until:
        echo.listen(min(0.05, arguments.wait))
    now = time.monotonic()
    print(json.dumps({address: seen.result(now) for address, seen in echo.seen.items()}))  # noqa: T201
    return 0 if all(seen.answered for seen in echo.seen.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
