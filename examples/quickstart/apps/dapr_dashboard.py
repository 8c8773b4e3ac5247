"""Subscribes `reading.>` through Dapr and shows what came at http://HOST:8080/received: plain HTTP both ways."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

received: dict[str, set[int]] = {}


class Handler(BaseHTTPRequestHandler):
    """Dapr asks GET /dapr/subscribe what to deliver and POSTs each message as a CloudEvent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Subscriptions for Dapr, counts for humans."""
        if self.path == "/dapr/subscribe":
            self._answer(200, [{"pubsubname": "network", "topic": "reading.>", "route": "/readings"}])
        elif self.path == "/received":
            self._answer(
                200, {source: {"count": len(numbers), "last": max(numbers)} for source, numbers in received.items()}
            )
        else:
            self._answer(404, {})

    def do_POST(self) -> None:
        """One message; Dapr delivers it again unless the answer is 2xx."""
        event = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        received.setdefault(event["topic"], set()).add(event["data"]["number"])
        self._answer(200, {"status": "SUCCESS"})

    def log_message(self, format: str, *args: Any) -> None:
        """No access log."""

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ.get("HOST", "0.0.0.0"), 8080), Handler).serve_forever()
