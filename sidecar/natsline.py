"""The two lines of NATS' client protocol that the relay changes: the server's INFO and the client's CONNECT. Pure.

A client behind the relay must not learn where the servers are, or it would go around the relay. The first INFO names
addresses; later ones (a change of the cluster, lame duck mode, the answer to CONNECT) are sent only to clients whose
CONNECT says `"protocol": 1`. It is made to say 0, so that these two lines are all that ever has to be read: whatever
follows passes unparsed, and no payload can be mistaken for a line.
See https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

#: The longest line that is waited for. A server takes control lines of 4 KiB unless it is told otherwise.
LONGEST_LINE: Final = 1 << 16
_INFO: Final = re.compile(rb"INFO[ \t]+(\{.*\})[ \t]*\r?\n", re.IGNORECASE | re.DOTALL)
_CONNECT: Final = re.compile(rb"CONNECT[ \t]+(\{.*\})[ \t]*\r?\n", re.IGNORECASE | re.DOTALL)
#: What a client of the relay must not act upon: TLS is the relay's work, addresses would lead around it.
_HIDDEN: Final = frozenset({"tls_required", "tls_available", "tls_verify", "connect_urls", "ws_connect_urls", "ip"})


class FirstLine:
    """Gathers the first line of a stream that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The line with its end and what follows it; None while it is not complete. ValueError when it is too long."""
        start = len(self._held)
        self._held += data
        end = self._held.find(b"\n", start) + 1
        if (end or len(self._held)) > LONGEST_LINE:
            raise ValueError(f"the first line is longer than {LONGEST_LINE} bytes")
        return (self._held[:end], self._held[end:]) if end else None


class Rewriter:
    """Passes a stream on, with its first line rewritten."""

    def __init__(self, rewrite: Callable[[bytes], bytes]) -> None:
        self._rewrite = rewrite
        self._first = FirstLine()
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now; ValueError as that of FirstLine."""
        if self.done:
            return data
        found = self._first.feed(data)
        if found is None:
            return b""
        self.done = True
        return self._rewrite(found[0]) + found[1]


def parse_info(line: bytes) -> dict[str, Any]:
    """What the server says of itself; ValueError when the line is no INFO."""
    found = _INFO.fullmatch(line)
    info = json.loads(found[1]) if found else None
    if not isinstance(info, dict):
        raise ValueError("the server's first line is no INFO")
    return info


def rewrite_info(info: dict[str, Any], host: str, port: int) -> bytes:
    """The INFO line for a client of a relay at this address; everything that is not about addresses or TLS stays."""
    kept = {name: value for name, value in info.items() if name not in _HIDDEN}
    return b"INFO " + _encode({**kept, "host": host, "port": port}) + b" \r\n"


def rewrite_connect(line: bytes) -> bytes:
    """The client's first line with protocol 0. What is no CONNECT stays as it is: the server will refuse it."""
    found = _CONNECT.fullmatch(line)
    try:
        options = json.loads(found[1]) if found else None
    except ValueError:
        options = None
    if not isinstance(options, dict):
        return line
    # The server reads member names without regard to case.
    kept = {name: value for name, value in options.items() if name.lower() != "protocol"}
    return connect({**kept, "protocol": 0})


def connect(options: dict[str, Any]) -> bytes:
    """A CONNECT line."""
    return b"CONNECT " + _encode(options) + b"\r\n"


def _encode(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
