"""One connection through the relay, byte by byte: what a selector cannot see must not be left behind."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from localcluster.stack import Authority
from sidecar.pipe import CHUNK, Flow

#: Plain bytes of the largest TLS record.
RECORD = 1 << 14


@pytest.fixture
def secured(authority: Authority) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """Both ends of a TLS connection: the server's, and the relay's."""
    certificate, key = authority.issue("pipe", ["127.0.0.1"])
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cadata=authority.pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialling = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    servers: list[ssl.SSLSocket] = []
    shaking = threading.Thread(target=lambda: servers.append(accepting.wrap_socket(accepted, server_side=True)))
    shaking.start()
    with trusting.wrap_socket(dialling, server_hostname="127.0.0.1") as relays:
        shaking.join()
        with servers[0] as server:
            yield server, relays


@pytest.mark.parametrize("first", [1, 100, RECORD - 1, RECORD])
def test_of_tls_records_that_do_not_fit_into_one_read_nothing_stays_behind(
    secured: tuple[ssl.SSLSocket, ssl.SSLSocket], first: int
) -> None:
    """TLS takes whole records off the socket: a rest of one would wait, unseen, until the server speaks again."""
    server, relays = secured
    relays.setblocking(False)
    near, far = socket.socketpair()
    sent = b"a" * first + b"b" * CHUNK
    with near, far:
        far.settimeout(5)
        server.sendall(sent[:first])
        server.sendall(sent[first:])
        flow, buffer, received = Flow(relays, near, None), memoryview(bytearray(CHUNK)), b""
        while len(received) < len(sent):
            assert select.select([relays], [], [], 1)[0], f"{len(sent) - len(received)} bytes are left behind"
            flow.pump(buffer)
            while select.select([far], [], [], 0)[0] or flow.pending:
                received += far.recv(CHUNK)
                flow.flush()
    assert received == sent
