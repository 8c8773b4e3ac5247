"""Is called by Dapr for every temperature, and prints it."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

SUBSCRIPTIONS = [{"pubsubname": "network", "topic": "temperature.>", "route": "/temperature"}]


class Handler(BaseHTTPRequestHandler):
    """Dapr asks once what we subscribe, and then posts each message as a CloudEvent."""

    def do_GET(self) -> None:
        """GET /dapr/subscribe; everything else is unknown."""
        known = self.path == "/dapr/subscribe"
        self._answer(200 if known else 404, SUBSCRIPTIONS if known else {})

    def do_POST(self) -> None:
        """One message. Any answer but 2xx makes Dapr deliver it again."""
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(event["data"]["value"], "from", event["data"]["from"], flush=True)
        self._answer(200, {"status": "SUCCESS"})

    def log_message(self, *_arguments: object) -> None:
        """No access log."""

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    HTTPServer((os.environ.get("HOST", "0.0.0.0"), 8080), Handler).serve_forever()
