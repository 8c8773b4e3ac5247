"""Probes on one interface: ICMPv6 echo with a word about us in it, and a raw socket that sees nothing else.

The kernel answers echo requests by itself; we read those of the peers, too, for what they say.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

_ECHO_REQUEST: Final = 128
_ECHO_REPLY: Final = 129
#: Type, code, checksum (the kernel's task), identifier, sequence number (RFC 4443, 4.1).
_ECHO: Final = struct.Struct("!BBHHH")
_ICMPV6_FILTER: Final = 1  # linux/icmpv6.h
#: What a request carries besides: that it is a probe of abbot, and whether its sender hears us.
_HEARS: Final = b"edgefarm probe 1"
_HEARS_NOT: Final = b"edgefarm probe 0"
_TYPES: Final = 256
_LARGEST_PACKET: Final = 2048
_BUFFER: Final = 1 << 20


@dataclass(frozen=True)
class Answered:
    """The answer to our probe with this sequence number."""

    sender: str
    sequence: int


@dataclass(frozen=True)
class Told:
    """A probe of the peer: whether it hears us."""

    sender: str
    hears: bool


class EchoSocket:
    """Sends and reads probes over one interface, without blocking. Needs CAP_NET_RAW."""

    def __init__(self, interface: str, index: int, address: str, identifier: int) -> None:
        """`address` is our link-local one on `interface`, which has `index`; OSError while there is no such thing."""
        self.place = (index, address)
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, _only(_ECHO_REQUEST, _ECHO_REPLY))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((address, 0, 0, self.place[0]))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """To wait for what comes in."""
        return self._socket.fileno()

    def send(self, address: str, sequence: int, *, hears: bool) -> None:
        """Send a probe, which says whether we hear the peer; OSError when it cannot leave."""
        packet = _ECHO.pack(_ECHO_REQUEST, 0, 0, self._identifier, sequence) + (_HEARS if hears else _HEARS_NOT)
        self._socket.sendto(packet, (address, 0, 0, self.place[0]))

    def receive(self) -> Answered | Told | None:
        """What came in; None for echoes of others. BlockingIOError: no more."""
        data, address = self._socket.recvfrom(_LARGEST_PACKET)
        if len(data) < _ECHO.size:
            return None
        sender = address[0].partition("%")[0]
        kind, _, _, identifier, sequence = _ECHO.unpack_from(data)
        if kind == _ECHO_REPLY:
            return Answered(sender, sequence) if identifier == self._identifier else None
        word = data[_ECHO.size :]
        return Told(sender, word == _HEARS) if word in (_HEARS, _HEARS_NOT) else None

    def close(self) -> None:
        """No more."""
        self._socket.close()


def _only(*kinds: int) -> bytes:
    """A filter (RFC 3542, 3.2) that blocks all types but these: a set bit blocks, in 32-bit words of the host."""
    words = [0xFFFFFFFF] * (_TYPES // 32)
    for kind in kinds:
        words[kind // 32] &= ~(1 << (kind % 32))
    return struct.pack(f"={len(words)}I", *words)
