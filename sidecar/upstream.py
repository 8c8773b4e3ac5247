"""Connects to a NATS server up to its INFO, verified TLS included, and can try whether it accepts our credentials.

Blocking, with a deadline: the relay's dialling threads and the looks of `route` use it.
"""

from __future__ import annotations

import base64
import errno
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from edgefarm import __version__
from edgefarm.nats import nkeys
from sidecar import natsline
from sidecar.connections import endpoint
from sidecar.credentials import Credentials
from sidecar.route import Answer, Look, Looked, Place, Reach

#: Seconds for a connection with INFO and TLS. The leaf is on our own node; the hub may be behind a bad line.
TIMEOUTS: Final = {Place.LEAF: 1.0, Place.HUB: 2.5}
#: The same for a leaf that has answered before: its node may be busy. Clients wait for two seconds, and the relay must
#: be done before; a leaf that refuses does so at once, so that nobody goes to the hub any later for this.
KNOWN_LEAF: Final = 1.7
_CHUNK: Final = 1 << 16


@dataclass(frozen=True)
class Upstream:
    """One way to the network: equal servers, and the PEM text that they are verified against (None: system roots)."""

    place: Place
    urls: tuple[str, ...]
    trust: str | None


class DialError(Exception):
    """No usable connection: `reach` for decisions, the message for people."""

    def __init__(self, reach: Reach, message: str) -> None:
        super().__init__(message)
        self.reach = reach


@dataclass(frozen=True)
class Dialled:
    """A connection whose server has spoken: what it said of itself, and bytes that came with that."""

    connection: socket.socket
    info: dict[str, Any]
    rest: bytes


@dataclass(frozen=True)
class Trouble:
    """A connection to a server failed (with a sentence) or ended."""

    place: Place
    problem: str | None


@dataclass(frozen=True)
class Connected:
    """A server was reached."""

    place: Place


@dataclass(frozen=True)
class Bug:
    """Something that must not happen did."""

    error: str


#: What threads that connect have to say.
Report = Trouble | Connected | Bug


class Dialler:
    """Makes connections; for use by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        #: Servers that seem to want TLS before they say anything (`handshake_first`): found out by trying.
        self._tls_first: set[str] = set()
        #: Those that spoke first when they were heard last: one that is silent for once is just busy.
        self._spoke_first: set[str] = set()
        #: Those that have answered at all.
        self._known: set[str] = set()

    def dial(self, url: str, upstream: Upstream, timeout: float | None = None) -> Dialled:
        """Connect to one server, within `timeout` seconds if that is given; DialError when that fails or is not to be
        trusted."""
        timeout = timeout or self._patience(url, upstream.place)
        deadline = time.monotonic() + timeout
        try:
            scheme = _scheme(url)
            plain = socket.create_connection(endpoint(url), timeout)
            return self._greet(plain, url, scheme, upstream.trust, deadline)
        except ssl.SSLCertVerificationError as error:
            sentence = f"the certificate of {url} is not trusted: {error.verify_message}"
            raise DialError(Reach.REFUSES, sentence) from error
        except ValueError as error:
            raise DialError(Reach.REFUSES, f"{url} cannot be used: {error}") from error
        except ConnectionError as error:
            raise DialError(Reach.REFUSES, f"{url} refuses the connection: {_reason(error)}") from error
        except ssl.SSLError as error:  # after a silence also that we guessed wrongly who begins: no reason to leave
            raise DialError(Reach.SILENT, f"{url} does not speak TLS: {_reason(error)}") from error
        except OSError as error:  # also what a resolver says, or a missing route
            raise DialError(Reach.SILENT, f"{url} does not answer: {_reason(error)}") from error

    def attempt(self, upstream: Upstream, credentials: Credentials | None, timeout: float | None = None) -> Answer:
        """Whether a server works, and accepts the credentials if there are any. Leaves no connection behind."""
        answer = Answer(Reach.SILENT)
        for url in upstream.urls:
            try:
                dialled = self.dial(url, upstream, timeout)
            except DialError as error:
                answer = Answer(error.reach, str(error))
                continue
            with dialled.connection as connection:
                refusal = None if credentials is None else _log_in(connection, dialled, credentials)
            if refusal is None:
                return Answer(Reach.WORKS)
            answer = Answer(Reach.DENIES, f"{url} does not accept the credentials: {refusal}")
        return answer

    def look(self, action: Look, leaf: Upstream, hub: Upstream, credentials: Credentials) -> Looked:
        """Do what `route` asks for."""
        # Nobody waits for a look from the hub, so a leaf on a busy node may take longer to answer that one.
        timeout = TIMEOUTS[Place.HUB] if action.current is Place.HUB else None
        found = self.attempt(leaf, credentials if action.login else None, timeout)
        return Looked(found, self.attempt(hub, credentials) if action.needs_hub(found) else None)

    def _greet(self, connection: socket.socket, url: str, scheme: str, trust: str | None, deadline: float) -> Dialled:
        first, info = url in self._tls_first, None
        try:
            if first:
                connection = self._secure(connection, url, trust, deadline)
            info, rest = _read_info(connection, deadline)
            if not first:
                self._spoke_first.add(url)
            if not first and _wants_tls(info, scheme):
                if rest:
                    raise ValueError("it goes on speaking before TLS has begun")
                connection = self._secure(connection, url, trust, deadline)
        except (OSError, ValueError) as error:
            connection.close()
            if first and not isinstance(error, ssl.SSLCertVerificationError):
                self._tls_first.discard(url)
            elif scheme == "tls" and info is None and isinstance(error, TimeoutError):
                self._doubt(url)
            raise
        self._known.add(url)
        return Dialled(connection, info, rest)

    def _patience(self, url: str, place: Place) -> float:
        return KNOWN_LEAF if place is Place.LEAF and url in self._known else TIMEOUTS[place]

    def _doubt(self, url: str) -> None:
        """Silence may mean that the server waits for a handshake: then the next attempt is the other way round."""
        if url in self._spoke_first:
            self._spoke_first.discard(url)
        else:
            self._tls_first.add(url)

    def _secure(self, plain: socket.socket, url: str, trust: str | None, deadline: float) -> ssl.SSLSocket:
        plain.settimeout(_left(deadline))
        return self._context(trust).wrap_socket(plain, server_hostname=endpoint(url)[0])

    def _context(self, trust: str | None) -> ssl.SSLContext:
        with self._lock:
            if trust not in self._contexts:
                self._contexts[trust] = ssl.create_default_context(cadata=trust)
            return self._contexts[trust]


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme if "://" in url else "nats"
    if scheme not in ("tls", "nats"):
        raise ValueError("the sidecar connects to tls:// and nats:// only")
    return scheme


def _wants_tls(info: dict[str, Any], scheme: str) -> bool:
    if scheme == "tls" and not (info.get("tls_required") or info.get("tls_available")):
        raise ValueError("the server offers no TLS")
    return scheme == "tls" or bool(info.get("tls_required"))


def _read_info(connection: socket.socket, deadline: float) -> tuple[dict[str, Any], bytes]:
    line, rest = _read_line(connection, b"", deadline)
    return natsline.parse_info(line), rest


def _read_line(connection: socket.socket, data: bytes, deadline: float) -> tuple[bytes, bytes]:
    first = natsline.FirstLine()
    while (found := first.feed(data)) is None:
        connection.settimeout(_left(deadline))
        data = connection.recv(_CHUNK)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "closed before it had spoken")
    return found


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _log_in(connection: socket.socket, dialled: Dialled, credentials: Credentials) -> str | None:
    """None when the server accepts a login, else what it says."""
    nonce = str(dialled.info.get("nonce", ""))
    signature = base64.urlsafe_b64encode(nkeys.sign(credentials.seed, nonce.encode())).rstrip(b"=").decode()
    options = {
        "verbose": False,
        "pedantic": False,
        "protocol": 0,
        "lang": "edgefarm",
        "version": __version__,
        "name": "look",
        "jwt": credentials.jwt,
        "sig": signature,
    }
    deadline = time.monotonic() + TIMEOUTS[Place.HUB]
    try:
        connection.settimeout(_left(deadline))
        connection.sendall(natsline.connect(options) + b"PING\r\n")
        line, _ = _read_line(connection, dialled.rest, deadline)
    except (OSError, ValueError) as error:
        return str(error)
    return None if line.strip().upper() == b"PONG" else line.decode(errors="replace").strip()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
