"""A stand-in for the part of a Kubernetes API server that Vault talks to: TokenReview over TLS, and the tokens."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from localcluster.stack import Authority

_ISSUER = "https://kubernetes.default.svc"


@dataclass
class TokenReviewer:
    """Issues service account tokens and confirms them when Vault asks."""

    url: str
    ca_pem: str
    _key: ec.EllipticCurvePrivateKey
    _server: ThreadingHTTPServer

    @classmethod
    def start(cls, authority: Authority) -> TokenReviewer:
        key = ec.generate_private_key(ec.SECP256R1())
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("reviewer", ["127.0.0.1"]))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return cls(f"https://127.0.0.1:{server.server_port}", authority.pem, key, server)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(
        self,
        namespace: str,
        name: str,
        *,
        audience: str = "edgefarm-network",
        lifetime: timedelta = timedelta(hours=1),
    ) -> str:
        """A service account token as the TokenRequest API makes them; a negative lifetime has expired."""
        now = datetime.now(UTC)
        claims = {
            "iss": _ISSUER,
            "aud": [audience],
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "iat": now - timedelta(hours=2),
            "nbf": now - timedelta(hours=2),
            "exp": now + lifetime,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": name, "uid": f"uid-{namespace}-{name}"},
            },
        }
        return jwt.encode(claims, self._key, algorithm="ES256")


def _handler(key: ec.EllipticCurvePrivateKey) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({**review, "status": _status(key, review["spec"])}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


def _status(key: ec.EllipticCurvePrivateKey, spec: dict[str, Any]) -> dict[str, Any]:
    try:
        claims = jwt.decode(
            spec["token"], key.public_key(), algorithms=["ES256"], audience=spec.get("audiences") or [_ISSUER]
        )
    except jwt.InvalidTokenError as error:
        return {"authenticated": False, "error": str(error)}
    namespace = claims["kubernetes.io"]["namespace"]
    account = claims["kubernetes.io"]["serviceaccount"]
    return {
        "authenticated": True,
        "audiences": claims["aud"],
        "user": {
            "username": claims["sub"],
            "uid": account["uid"],
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
        },
    }
