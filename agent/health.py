"""Serves /healthz, /readyz and /metrics over plain HTTP, from a thread of its own."""

from __future__ import annotations

import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agent.metrics import CONTENT_TYPE, Metrics
from agent.presence import Presence

_TEXT = "text/plain; charset=utf-8"


class HealthServer:
    """Answers the kubelet and Prometheus."""

    def __init__(self, host: str, port: int, presence: Presence, metrics: Metrics) -> None:
        """Listen; OSError when the address cannot be used."""
        self._server = _Server((host, port), _handler(presence, metrics))
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is not worth a line, either."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _handler(presence: Presence, metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        #: Seconds for a slow peer.
        timeout = 5

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/healthz":
                    self._send(HTTPStatus.OK, b"ok\n")
                case "/readyz" if presence.ready:
                    self._send(HTTPStatus.OK, f"ready: {presence.sentence}\n".encode())
                case "/readyz":
                    self._send(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {presence.sentence}\n".encode())
                case "/metrics":
                    self._send(HTTPStatus.OK, metrics.render(), CONTENT_TYPE)
                case _:
                    self._send(HTTPStatus.NOT_FOUND, b"known here: /healthz, /metrics, /readyz\n")

        def _send(self, status: HTTPStatus, body: bytes, content_type: str = _TEXT) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are not worth a line."""

    return Handler
