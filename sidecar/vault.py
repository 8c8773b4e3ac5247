"""The three requests that the sidecar makes to Vault or OpenBao, over one connection that is kept open.

Not `edgefarm.vault`, whose client library alone needs more memory than this whole process may have.
"""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.secrets import mask_secrets
from sidecar.access import Signer
from sidecar.http1 import Connection, ProtocolError
from sidecar.settings import VaultSettings

#: Seconds for the connection and for each answer. Login includes a TokenReview at the Kubernetes API.
TIMEOUT: Final = 5.0
_MAX_ERROR_TEXT: Final = 300
#: Answers that say nothing about the request: throttled, and a standby that has not caught up.
_TRY_AGAIN: Final = frozenset({412, 429})


class VaultClient:
    """A client of one Vault; not for use by two threads. Holds the token that `login` got.

    Every request raises VaultUnavailable (no answer, sealed, standby, 5xx, 412, 429, something that is no Vault) or
    VaultRefused (any other 4xx).
    """

    def __init__(self, settings: VaultSettings, ca_bundle: str | None) -> None:
        self._settings = settings
        self._url = urlsplit(settings.address)
        host, secure = self._url.hostname or "", self._url.scheme == "https"
        tls = ssl.create_default_context(cadata=ca_bundle) if secure else None
        self._connection = Connection(host, self._url.port or (443 if secure else 80), TIMEOUT, tls)
        self._token: str | None = None

    def login(self, role: str, service_account_token: str) -> float:
        """Trade a service account token for a Vault token; return for how many seconds it is valid."""
        self._token = None
        path = f"auth/{self._settings.auth_mount}/login"
        auth = _member(self._call("POST", path, {"role": role, "jwt": service_account_token}), "auth")
        token, lease = auth.get("client_token"), auth.get("lease_duration")
        if not isinstance(token, str) or not isinstance(lease, int):
            raise VaultUnavailable("Vault's answer to the login holds no token")
        self._token = token
        return float(lease)

    def read_document(self, path: str) -> Mapping[str, Any]:
        """The newest version of a KV document."""
        answer = self._call("GET", f"{self._settings.kv_mount}/data/{path}")
        return _member(_member(answer, "data"), "data")

    def sign(self, signer: Signer, data: bytes) -> bytes:
        """The raw ed25519 signature by a key, at exactly its version."""
        body = {"input": base64.b64encode(data).decode(), "key_version": signer.key_version}
        path = f"{self._settings.transit_mount}/sign/{quote(signer.transit_key, safe='')}"
        signature = _member(self._call("POST", path, body), "data").get("signature")
        version, _, encoded = str(signature).removeprefix("vault:").partition(":")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raw = b""
        if version != f"v{signer.key_version}" or len(raw) != 64:
            raise VaultUnavailable("Vault's answer holds no ed25519 signature of the key version that was asked for")
        return raw

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        kept = self._connection.open
        try:
            status, answer = self._connection.request(method, f"{self._url.path}/v1/{path}", payload, self._headers())
        except (OSError, ProtocolError) as error:
            # A kept connection may have been closed by the other side since; all three requests may be repeated.
            if not kept or isinstance(error, TimeoutError):
                raise VaultUnavailable(self._unreachable(error)) from error
            return self._call(method, path, body)
        if status >= 500 or status in _TRY_AGAIN or 300 <= status < 400:
            raise VaultUnavailable(f"Vault at {self._settings.address} cannot serve now ({_reason(status, answer)})")
        if status >= 400:
            raise VaultRefused(_reason(status, answer), status)
        try:
            parsed = json.loads(answer)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise VaultUnavailable(f"{self._settings.address} answers, but not as Vault does")
        return parsed

    def _headers(self) -> dict[str, str]:
        headers = {"X-Vault-Request": "true", "Content-Type": "application/json"}
        if self._token is not None:
            headers["X-Vault-Token"] = self._token
        if self._settings.namespace is not None:
            headers["X-Vault-Namespace"] = self._settings.namespace
        return headers

    def _unreachable(self, error: Exception) -> str:
        reason = str(error) or type(error).__name__
        return f"Vault at {self._settings.address} cannot be reached: {mask_secrets(reason)}"


def _member(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = answer.get(name)
    if not isinstance(value, dict):
        raise VaultUnavailable(f"Vault's answer has no {name!r}")
    return value


def _reason(status: int, answer: bytes) -> str:
    """The HTTP status and Vault's own words, cut and masked: an error may repeat what was sent."""
    try:
        parsed = json.loads(answer)
    except ValueError:
        parsed = None
    errors = parsed.get("errors") if isinstance(parsed, dict) else None
    words = "; ".join(str(error) for error in errors) if isinstance(errors, list) else ""
    words = " ".join(mask_secrets(words).split())[:_MAX_ERROR_TEXT]
    return f"HTTP {status}: {words}" if words else f"HTTP {status}"
