"""One connection through the relay: an application's socket, a server's socket, and the bytes between them.

Nothing is gathered: what one side does not take at once (at most one chunk per direction) is kept, and the other side
is not read until it is gone. So a slow reader slows its writer down as if they were connected directly.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Callable
from typing import Final

#: Bytes read at once; also the most that is kept per direction.
CHUNK: Final = 1 << 16
#: The most that one TLS record holds.
_RECORD: Final = 1 << 14
#: Seconds to deliver what is left after one side has ended.
LINGER: Final = 5.0
_WOULD_BLOCK: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Flow:
    """One direction. `rewrite` may hold back, replace or refuse (ValueError) what passes."""

    def __init__(self, source: socket.socket, sink: socket.socket, rewrite: Callable[[bytes], bytes] | None) -> None:
        self.source = source
        self.sink = sink
        self.rewrite = rewrite
        self._in_records = isinstance(source, ssl.SSLSocket)
        self.pending = b""
        self.ended = False  # nothing more will be read
        self.discarding = False  # nothing more can be delivered; reading goes on, so that the source sees no error
        self.finished = False  # the sink was told the end

    def pump(self, buffer: memoryview) -> bool:
        """Move what is there, a buffer full at most; return whether the source ended by this."""
        if self.pending or self.ended:
            return False
        size, ended = self._fill(buffer)
        if size and not self.discarding:
            self._pass(buffer[:size])
        if ended:
            self.end()
        return ended

    def flush(self) -> None:
        """Send on what the sink did not take before."""
        if self.pending:
            data, self.pending = self.pending, b""
            self._send(data)
        if self.ended:
            self._finish()

    def end(self) -> None:
        """The source says no more: when all is delivered, the sink is told."""
        self.ended = True
        self._finish()

    def give_up(self) -> None:
        """Deliver nothing any more."""
        self.pending, self.discarding = b"", True

    def _fill(self, buffer: memoryview) -> tuple[int, bool]:
        """Read what is there; return also whether the source has ended.

        TLS hands out one record at a time, however much is there. It takes records as a whole off the socket, so there
        must be room for all of it: nobody is told of a rest that waits inside.
        """
        size, needed = 0, _RECORD if self._in_records else 1
        while len(buffer) - size >= needed:
            try:
                read = self.source.recv_into(buffer[size:])
            except _WOULD_BLOCK:
                break
            except OSError:
                read = 0
            if read == 0:
                return size, True
            size += read
            if not self._in_records:
                break
        return size, False

    def _pass(self, data: memoryview) -> None:
        if self.rewrite is None:
            self._send(data)
            return
        try:
            self._send(self.rewrite(bytes(data)))
        except ValueError:  # not NATS
            self.give_up()

    def _send(self, data: bytes | memoryview) -> None:
        if self.discarding or not data:
            return
        try:
            sent = self.sink.send(data)
        except _WOULD_BLOCK:
            sent = 0
        except OSError:
            self.give_up()
            return
        if sent < len(data):
            # TLS must be given the same bytes again after it could not send them.
            self.pending = bytes(data[sent:])

    def _finish(self) -> None:
        if not self.pending and not self.finished:
            self.finished = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Pipe:
    """Both directions, and what has to be waited for."""

    def __init__(
        self, client: socket.socket, server: socket.socket, greeting: bytes, rewrite: Callable[[bytes], bytes]
    ) -> None:
        self.client = client
        self.server = server
        self.up = Flow(client, server, rewrite)
        self.down = Flow(server, client, None)
        self.down.pending = greeting
        #: When it is closed at the latest; None while both sides are open.
        self.close_by: float | None = None

    def interest(self, side: socket.socket) -> int:
        """The selector's events to wait for at this side."""
        reading, writing = (self.up, self.down) if side is self.client else (self.down, self.up)
        wanted = selectors.EVENT_READ if not reading.ended and not reading.pending else 0
        return wanted | (selectors.EVENT_WRITE if writing.pending else 0)

    def ready(self, side: socket.socket, mask: int, buffer: memoryview) -> bool:
        """Do what a side is ready for; return whether the server's side ended by this."""
        reading, writing = (self.up, self.down) if side is self.client else (self.down, self.up)
        if mask & selectors.EVENT_WRITE:
            writing.flush()
        ended = bool(mask & selectors.EVENT_READ) and reading.pump(buffer)
        if self.up.finished:  # TLS ended with it: what the server still says cannot be read any more
            self.down.give_up()
        return ended and side is self.server

    def redirect(self) -> None:
        """Make the client connect anew: it is told the end of the stream, and what it has still sent is delivered."""
        self.down.give_up()
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_WR)

    @property
    def ended(self) -> bool:
        """Whether one side has ended."""
        return self.up.ended or self.down.ended

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.up.ended and self.down.ended and not self.up.pending and not self.down.pending

    def close(self) -> None:
        """Close both sides."""
        self.client.close()
        self.server.close()
