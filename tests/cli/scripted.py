"""An HTTP server that answers as a test says: for what a healthy API server does not do on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

#: Path and query of a GET to status and body.
Script = Callable[[str, Mapping[str, str]], tuple[int, Any]]


@dataclass
class Scripted:
    """The running server: where it is, and the Authorization headers of what it was asked."""

    url: str
    authorizations: list[str] = field(default_factory=list)


@contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """Serve the script on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running.authorizations.append(self.headers.get("Authorization", ""))
            parts = urlsplit(self.path)
            status, body = script(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
            data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Scripted(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def failure(status: int, message: str) -> tuple[int, dict[str, Any]]:
    """A refusal as the API server words it."""
    return status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status}


def kubeconfig(path: Path, url: str, user: Mapping[str, Any] | None = None, **context: str) -> Path:
    """A kubeconfig with one context, `it`; `context` are more members of it."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": {"server": url}}],
        "users": [{"name": "it", "user": dict(user or {"token": "secret-token"})}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", **context}}],
        "current-context": "it",
    }
    path.write_text(yaml.safe_dump(document))
    return path
