"""Whether a program of the host listens on a port that a container wants: the container's rules would cut it off."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, Final

_KINDS: Final = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - to find who listens there


def listened_on(mapping: Mapping[str, Any]) -> bool:
    """Whether the port of a CNI port mapping is taken by a socket of the host, at its address or at all."""
    addresses = [mapping["hostIP"]] if "hostIP" in mapping else _EVERYWHERE
    return any(_taken(address, mapping["hostPort"], mapping["protocol"]) for address in addresses)


def _taken(address: str, port: int, protocol: str) -> bool:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, *_KINDS[protocol]) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if protocol == "tcp":
                # Connections that have ended, or go out from this port, listen to nobody.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        # Others: the host has no such address or protocol, and so nobody who listens.
        return error.errno == errno.EADDRINUSE
    return False
