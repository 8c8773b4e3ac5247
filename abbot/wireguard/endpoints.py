"""Endpoints of peers: checks them, and finds the addresses of those that are names."""

from __future__ import annotations

import math
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from abbot.worker import Worker
from edgefarm.errors import InvalidMessage

_MAX_PORT: Final = 65535
_LONGEST_NAME: Final = 253
#: Seconds after which a name is looked up anew, and in which nobody waits after somebody has waited in vain.
_FRESH: Final = 30.0
_PAUSE: Final = 30.0
_MOST_NAMES: Final = 4096
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


@dataclass(frozen=True)
class _Lookup:
    """The latest look for a name's address: what comes of it, when it began, and what was known before."""

    future: Future[str]
    since: float
    earlier: str

    @property
    def address(self) -> str:
        return (self.future.result() if self.future.done() else "") or self.earlier


class Resolver:
    """Finds addresses of names in a thread of its own, and remembers them, also that a name has none.

    An address that was found once serves until there is another one: name servers are away when links are.
    """

    def __init__(
        self,
        timeout: float = 2.0,
        *,
        look_up: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`timeout` are seconds to wait for a new name; `look_up` gives a name's address, empty: none."""
        self._timeout = timeout
        self._look_up = look_up or _first_address
        self._clock = clock
        self._worker = Worker("resolve")
        self._lookups: dict[str, _Lookup] = {}
        self._patient_from = -math.inf

    def resolve(self, endpoint: str) -> str:
        """The endpoint with an address; empty when its name has none, or none in time.

        Who has waited in vain has waited for all: nobody waits again for some time.
        """
        host, _, port = endpoint.rpartition(":")
        if not endpoint or _address(host) is not None:
            return endpoint
        lookup = self._lookup(host)
        if not lookup.earlier and self._clock() >= self._patient_from:
            try:
                lookup.future.result(self._timeout)
            except NotInTime:
                self._patient_from = self._clock() + _PAUSE
        return f"{lookup.address}:{port}" if lookup.address else ""

    def known(self, endpoint: str) -> str:
        """The same without waiting: what is not known yet may be at the next call."""
        host, _, port = endpoint.rpartition(":")
        if not endpoint or _address(host) is not None:
            return endpoint
        address = self._lookup(host).address
        return f"{address}:{port}" if address else ""

    def _lookup(self, host: str) -> _Lookup:
        last = self._lookups.get(host)
        now = self._clock()
        if last is not None and (not last.future.done() or now - last.since < _FRESH):
            return last
        if last is None and len(self._lookups) >= _MOST_NAMES:
            self._lookups.pop(next(iter(self._lookups)))
        earlier = last.address if last else ""
        lookup = self._lookups[host] = _Lookup(self._worker.submit(partial(self._look_up, host)), now, earlier)
        return lookup


def _first_address(host: str) -> str:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return ""
    return _written(ip_address(found[0][4][0]))


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
