"""An application that speaks Dapr's HTTP API: says what it subscribes to and keeps what it is handed."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib import error, request


@dataclass
class Application:
    """`events` are the CloudEvents in order; `answers` are used up first, then every event is taken."""

    port: int
    events: list[dict[str, Any]]
    answers: list[tuple[int, Mapping[str, str]]]
    _server: ThreadingHTTPServer = field(repr=False)

    @classmethod
    def start(cls, topics: Sequence[str], answers: Sequence[tuple[int, Mapping[str, str]]] = ()) -> Application:
        """Serve on a free port."""
        events: list[dict[str, Any]] = []
        pending = list(answers)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(topics, events, pending))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return cls(server.server_port, events, pending, server)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def data(self) -> list[Any]:
        """The data of all events, each once: Dapr delivers at least once."""
        return list({event["id"]: event["data"] for event in list(self.events)}.values())


def publish(port: int, topic: str, data: Any, pubsub: str = "network") -> tuple[int, dict[str, Any]]:
    """Publish through Dapr; status and body of the answer (0 when nothing answers)."""
    call = request.Request(
        f"http://127.0.0.1:{port}/v1.0/publish/{pubsub}/{topic}",
        data=json.dumps(data).encode(),
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    try:
        with request.urlopen(call, timeout=15) as response:
            return response.status, {}
    except error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read() or b"{}")
    except OSError:
        return 0, {}


def _handler(
    topics: Sequence[str], events: list[dict[str, Any]], answers: list[tuple[int, Mapping[str, str]]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            subscriptions = [{"pubsubname": "network", "topic": topic, "route": "/events"} for topic in topics]
            if self.path == "/dapr/subscribe":
                self._answer(200, subscriptions)
            else:
                self._answer(404, {})

        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events.append(event)
            self._answer(*(answers.pop(0) if answers else (200, {"status": "SUCCESS"})))

        def _answer(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self._headers_buffer.append(b"\r\n" + content)  # in one packet
            self.flush_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
