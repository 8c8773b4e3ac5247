"""A real HTTPS admission webhook whose answers a test decides."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from localcluster.stack import Authority

Json = dict[str, Any]
#: From the AdmissionRequest to the members of the response besides `uid`.
Decide = Callable[[Json], Json]


def allow(_request: Json) -> Json:
    return {"allowed": True}


def patching(*operations: Json) -> Decide:
    """Allow with a JSON patch."""
    patch = base64.b64encode(json.dumps(list(operations)).encode()).decode()
    return lambda _request: {"allowed": True, "patchType": "JSONPatch", "patch": patch}


class Webhook:
    """Listens on loopback; `requests` holds the AdmissionRequests it was asked."""

    def __init__(self, authority: Authority, decide: Decide) -> None:
        self.requests: list[Json] = []
        self.ports: set[int] = set()
        self.decide = decide
        self._authority = authority
        certificate, key = authority.issue("webhook", ["127.0.0.1", "hook.hooks.svc"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def by_url(self) -> Json:
        bundle = base64.b64encode(self._authority.pem.encode()).decode()
        return {"url": f"https://127.0.0.1:{self.port}/mutate", "caBundle": bundle}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.requests.append(review["request"])
                hook.ports.add(self.client_address[1])
                response = {"uid": review["request"]["uid"], **hook.decide(review["request"])}
                answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def configuration(name: str, client: Json, namespace: str, kind: str = "Mutating", **hook: Any) -> Json:
    """A configuration with one webhook for pods of one namespace."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{name}.example.org",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "clientConfig": client,
                "namespaceSelector": selector,
                "rules": [rule],
                **hook,
            }
        ],
    }
