"""ICMPv6 echo on one interface: packets, and a raw socket that sees nothing else."""

from __future__ import annotations

import socket
import struct
from typing import Final

_ECHO_REQUEST: Final = 128
_ECHO_REPLY: Final = 129
#: Type, code, checksum (the kernel's task), identifier, sequence number (RFC 4443, 4.1).
_ECHO: Final = struct.Struct("!BBHHH")
_ICMPV6_FILTER: Final = 1  # linux/icmpv6.h
_TYPES: Final = 256
_LARGEST_PACKET: Final = 2048
_BUFFER: Final = 1 << 20


class EchoSocket:
    """Sends echo requests over one interface and reads the answers, without blocking. Needs CAP_NET_RAW."""

    def __init__(self, interface: str, index: int, address: str, identifier: int) -> None:
        """`address` is our link-local one on `interface`, which has `index`; OSError while there is no such thing."""
        self.index = index
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
            self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, _only(_ECHO_REPLY))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._socket.bind((address, 0, 0, self.index))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """To wait for answers."""
        return self._socket.fileno()

    def send(self, address: str, sequence: int) -> None:
        """Send an echo request; OSError when it cannot leave."""
        packet = _ECHO.pack(_ECHO_REQUEST, 0, 0, self._identifier, sequence)
        self._socket.sendto(packet, (address, 0, 0, self.index))

    def receive(self) -> tuple[str, int] | None:
        """Sender and sequence number of one of our answers; None for foreign ones. BlockingIOError: no more."""
        data, sender = self._socket.recvfrom(_LARGEST_PACKET)
        if len(data) < _ECHO.size:
            return None
        kind, _, _, identifier, sequence = _ECHO.unpack_from(data)
        if kind != _ECHO_REPLY or identifier != self._identifier:
            return None
        return sender[0].partition("%")[0], sequence

    def close(self) -> None:
        """No more."""
        self._socket.close()


def _only(kind: int) -> bytes:
    """A filter (RFC 3542, 3.2) that blocks all types but one: a set bit blocks, in 32-bit words of the host."""
    words = [0xFFFFFFFF] * (_TYPES // 32)
    words[kind // 32] &= ~(1 << (kind % 32))
    return struct.pack(f"={len(words)}I", *words)
