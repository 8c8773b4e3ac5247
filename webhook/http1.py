"""One HTTP/1.1 connection of the webhook: parses requests, keeps clients within limits, answers at once.

An answer needs no waiting, so a request is a plain function call: no task, no queue and no copy per request. Knows
nothing of admission; `server` owns the listener and the clock that ends slow connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol, cast

import httptools


class Request(NamedTuple):
    """A complete request. Names of headers are lower-case."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes


class Response(NamedTuple):
    """An answer; `close` ends the connection after it. `headers` are whole lines without their end."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[str, ...] = ()
    close: bool = False


class Application(Protocol):
    """What a server serves. Neither method may raise or block."""

    def handle(self, request: Request) -> Response:
        """Answer a request."""

    def refused(self, status: int, sentence: str) -> None:
        """Take note of a request that the connection refused by itself."""


@dataclass(frozen=True)
class Limits:
    """What clients may do; bytes and seconds."""

    body: int
    #: Request line and headers; the API server's are below one KiB.
    head: int = 16 * 2**10
    #: What of a body over the limit is still read and thrown away, so that its sender gets to read our answer.
    discarded: int = 16 * 2**20
    #: From the first byte of a request to its last, from the end of the handshake to the first request, and for
    #: reading an answer. The API server waits 30 s at most (for us 5): who is slower is not it.
    request_seconds: float = 10.0
    #: Between requests: longer than the API server keeps an idle connection (90 s), so that it is never we who close
    #: one that it is about to use.
    idle_seconds: float = 120.0
    #: Above this many the connections of least use are closed: far more than API servers open.
    connections: int = 1000


def sentence(status: int, text: str, *headers: str) -> Response:
    """A refusal. It closes the connection, which also ends a body that is still being sent."""
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers, close=True)


class Connection(asyncio.Protocol):
    """One client. `deadline` is the time of the event loop at which the server ends it."""

    def __init__(self, application: Application, limits: Limits, on_open: OnChange, on_close: OnChange) -> None:
        self._application, self._limits = application, limits
        self._on_open, self._on_close = on_open, on_close
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        #: Set by the server: the connection ends with its next answer.
        self.last_request = False
        #: How many requests were answered.
        self.answered = 0
        #: Whether a request has begun that is not answered yet.
        self.in_request = False
        self.deadline = self._loop.time() + limits.request_seconds
        self._begin()

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._on_open(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        # It refers back to this connection: without the cycle all memory is free at once.
        del self._parser
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if not self.in_request:
            self.in_request = True
            self.deadline = self._loop.time() + self._limits.request_seconds
        if not self._head_complete:
            self._received += len(data)  # the parser keeps a header to itself until it has all of it
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused with the head of its request
        except httptools.HttpParserError:
            self._refuse(400, _NOT_HTTP)
        if not self._head_complete and self._received > self._limits.head:
            self._refuse_head()

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no more, and not for ever."""
        if self._transport is not None:
            self._transport.pause_reading()
            self.deadline = self._loop.time() + self._limits.request_seconds

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # -- callbacks of the parser -------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._head_size += len(name) + len(value)

    def on_headers_complete(self) -> None:
        self._head_complete = True
        if self._head_size + len(self._url) > self._limits.head:
            self._refuse_head()
        elif self._parser.should_upgrade():
            self._refuse(400, "this server offers no other protocol")
        elif self._parser.get_http_version() not in _VERSIONS:
            self._refuse(400, _NOT_HTTP)
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size <= self._limits.body:
            self._body.append(body)
        elif self._body_size > self._limits.discarded:
            self._refuse_body()

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        if self._body_size > self._limits.body:
            self._refuse_body()
            return
        path = self._url.partition(b"?")[0].decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._parser.get_method().decode(), path, self._headers, body)
        response = self._application.handle(request)
        self.answered += 1
        self.in_request = False
        self.deadline = self._loop.time() + self._limits.idle_seconds
        self._send(response, close=response.close or self.last_request or not self._parser.should_keep_alive())
        self._begin()

    # -- for the server ----------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """End a connection whose deadline has passed."""
        if self.in_request:
            self._refuse(408, f"the request did not arrive within {self._limits.request_seconds:g} seconds")
        elif self._transport is not None and self._transport.get_write_buffer_size():
            self.abort()
        else:
            self.close()

    def close(self) -> None:
        """End the connection politely; what was written still goes out."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ----------------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Forget the former request."""
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_complete = False
        self._head_size = self._received = 0
        self._body: list[bytes] = []
        self._body_size = 0

    def _refuse_head(self) -> None:
        self._refuse(431, f"the headers are larger than {self._limits.head} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, f"the body is larger than {self._limits.body} bytes")

    def _refuse(self, status: int, text: str) -> None:
        if self._transport is not None:
            self._application.refused(status, text)
            self._send(sentence(status, text), close=True)

    def _send(self, response: Response, *, close: bool) -> None:
        assert self._transport is not None
        extra = "".join(f"{line}\r\n" for line in response.headers) if response.headers else ""
        end = "connection: close\r\n\r\n" if close else "\r\n"
        head = (
            f"{_STATUS_LINES[response.status]}content-type: {response.content_type}\r\n"
            f"content-length: {len(response.body)}\r\n{extra}{end}"
        )
        self._transport.write(head.encode("latin-1") + response.body)
        if close:
            self.close()


OnChange = Callable[[Connection], None]
_NOT_HTTP: Final = "this is not HTTP/1.1"
_VERSIONS: Final = ("1.1", "1.0")
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
