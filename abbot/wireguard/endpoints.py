"""Endpoints of peers: checks them, and finds the addresses of those that are names."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from edgefarm.errors import InvalidMessage

_MAX_PORT: Final = 65535
_LONGEST_NAME: Final = 253
_NAME: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


def normal_endpoint(text: str) -> str:
    """`address:port`, `[address]:port` or `name:port` in normal form; InvalidMessage says what to write instead."""
    host, separator, port = text.rpartition(":")
    address = _address(host)
    if not separator or not port.isascii() or not port.isdigit() or not 0 < int(port) <= _MAX_PORT:
        raise InvalidMessage(f"{text!r} is no endpoint: write address:port with a port from 1 to {_MAX_PORT}")
    if address is None and (host[-1:].isdigit() or len(host) > _LONGEST_NAME or not _NAME.fullmatch(host)):
        raise InvalidMessage(f"{text!r} is no endpoint: write 192.0.2.1:51820, [2001:db8::1]:51820 or name:51820")
    return f"{host.lower() if address is None else _written(address)}:{int(port)}"


class Resolver:
    """Finds addresses of names without waiting long for a name server that cannot be reached."""

    def __init__(self, timeout: float = 2.0) -> None:
        self._timeout = timeout
        self._lookups = ThreadPoolExecutor(max_workers=1, thread_name_prefix="resolve")

    def resolve(self, endpoint: str) -> str:
        """The endpoint with an address; empty when its name has none, or none in time."""
        host, _, port = endpoint.rpartition(":")
        if not endpoint or _address(host) is not None:
            return endpoint
        lookup = self._lookups.submit(socket.getaddrinfo, host, int(port), type=socket.SOCK_DGRAM)
        try:
            found = lookup.result(self._timeout)
        except (OSError, UnicodeError, NotInTime):
            return ""
        return f"{_written(ip_address(found[0][4][0]))}:{port}"

    def close(self) -> None:
        """Look nothing up any more."""
        self._lookups.shutdown(wait=False, cancel_futures=True)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    # Without brackets it cannot be told where an IPv6 address ends; a zone is not for WireGuard.
    if bracketed != (address.version == 6) or "%" in host:
        return None
    return address


def _written(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
