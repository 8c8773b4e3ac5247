"""Sends one request to Vault over pooled TLS connections and turns what goes wrong into our errors; counts requests."""

from __future__ import annotations

import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3
from hvac.adapters import RawAdapter

from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.secrets import mask_secrets
from edgefarm.vault.values import VaultSettings

#: Called after each request with its kind and HTTP status (None: no answer), in the thread that made the request.
RequestHook = Callable[[str, int | None], None]

#: Connections that are kept open; more threads than this still work, over connections that are closed after use.
_POOL_SIZE: Final = 32
_MAX_ERROR_TEXT: Final = 500
#: 4xx answers that are about the moment rather than about the request.
_TRY_AGAIN: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)


@dataclass(frozen=True)
class Operation:
    """A kind of request. `kind` names it in counters and messages; `write` says whether it changes what Vault holds."""

    kind: str
    method: str
    write: bool = False


class Transport:
    """One Vault server as one token holder sees it. Any number of threads may send at once."""

    def __init__(self, settings: VaultSettings, token: str | None, on_request: RequestHook | None) -> None:
        self._address = settings.address.rstrip("/")
        self._adapter = RawAdapter(
            base_uri=self._address,
            token=token,
            timeout=settings.timeout_seconds,
            session=_PooledSession(settings.ca_pem),
            namespace=settings.namespace or None,
            # A standby's redirect would carry the token to another host.
            allow_redirects=False,
            # Lists as GET: proxies between us and Vault may not know the verb LIST.
            strict_http=True,
        )
        self._on_request = on_request
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._writes = 0

    def use_token(self, token: str) -> None:
        """Send this token from now on; requests under way keep the one they began with."""
        self._adapter.token = token

    @property
    def requests(self) -> Counter[str]:
        """A copy of how many requests of each kind were sent."""
        with self._lock:
            return self._requests.copy()

    @property
    def writes(self) -> int:
        """How many requests that change what Vault holds were sent."""
        with self._lock:
            return self._writes

    def close(self) -> None:
        """Close the pooled connections."""
        self._adapter.close()

    def send(self, operation: Operation, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Send one request; the whole JSON answer, {} for an empty one, None for 404.

        Raises VaultUnavailable (no answer, 5xx, sealed, standby, throttled) and VaultRefused (any other 4xx).
        """
        self._count(operation)
        status: int | None = None
        try:
            response = self._adapter.request(
                operation.method, f"/v1/{quote(path)}", raise_exception=False, json=None if body is None else dict(body)
            )
            status = response.status_code
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = mask_secrets(str(error))[:_MAX_ERROR_TEXT]
            raise VaultUnavailable(f"Vault at {self._address} does not answer: {reason}") from None
        finally:
            if self._on_request is not None:
                self._on_request(operation.kind, status)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._error(operation, path, status, response.content)
        return _json_object(response.content)

    def read(self, operation: Operation, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Like `send`, but only the answer's `data`; raises VaultRefused when there is none."""
        answer = self.send(operation, path, body)
        if answer is None:
            return None
        data = answer.get("data")
        if not isinstance(data, dict):
            raise VaultRefused(f"the answer of Vault at {self._address} to {operation.kind} cannot be read")
        return data

    def _count(self, operation: Operation) -> None:
        with self._lock:
            self._requests[operation.kind] += 1
            self._writes += operation.write

    def _error(self, operation: Operation, path: str, status: int, content: bytes) -> VaultRefused | VaultUnavailable:
        errors = _json_object(content).get("errors")
        text = "; ".join(str(error).strip() for error in errors) if isinstance(errors, list) else ""
        text = mask_secrets(text)[:_MAX_ERROR_TEXT]
        if status < HTTPStatus.BAD_REQUEST:
            return VaultUnavailable(
                f"Vault at {self._address} is a standby that redirects: give the address of the active server"
            )
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRY_AGAIN:
            return VaultUnavailable(
                f"Vault at {self._address} cannot {operation.kind} now (HTTP {status}): {text or 'no reason given'}"
            )
        where = f"Vault at {self._address} refused to {operation.kind} at {path!r}"
        if status == HTTPStatus.FORBIDDEN:
            return VaultRefused(f"{where}: permission denied, or the login is no longer valid", status)
        return VaultRefused(f"{where} (HTTP {status}): {text or 'no reason given'}", status)


@dataclass(frozen=True)
class _Response:
    """The part of an answer that hvac's adapter and we look at."""

    status_code: int
    content: bytes

    @property
    def ok(self) -> bool:
        return self.status_code < HTTPStatus.BAD_REQUEST


class _PooledSession:
    """What hvac's adapter needs of a session, straight over urllib3's pool.

    Unlike `requests.Session` the pool is made for threads, takes half the CPU time, trusts exactly the given authority
    (else the system's), and takes no proxy, .netrc or CA setting from the environment, which must not change where a
    token is sent.
    """

    verify = cert = proxies = None  # hvac reads them from a session that it is given

    def __init__(self, ca_pem: str | None) -> None:
        try:
            context = ssl.create_default_context(cadata=ca_pem)
        except (ssl.SSLError, ValueError) as error:
            raise VaultRefused(f"the certificate authority given for Vault is not PEM text: {error}") from error
        self._pool = urllib3.PoolManager(maxsize=_POOL_SIZE, ssl_context=context)

    def request(self, method: str, url: str, *, headers: Mapping[str, str], **options: Any) -> _Response:
        """Send a request as `requests` would; redirects are answers, and nothing is repeated."""
        body, parameters = options.get("json"), options.get("params")
        response = self._pool.request(
            method.upper(),
            f"{url}?{urlencode(parameters)}" if parameters else url,
            headers={**headers, "Content-Type": "application/json"},
            body=None if body is None else json.dumps(body).encode(),
            timeout=options["timeout"],
            redirect=False,
            retries=False,
        )
        return _Response(response.status, response.data)

    def close(self) -> None:
        self._pool.clear()


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content) if content else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
