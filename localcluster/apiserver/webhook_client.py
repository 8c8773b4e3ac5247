"""HTTPS calls to admission webhooks: by URL, or by Service through its Endpoints; connections are reused."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
import urllib3

from localcluster.apiserver.endpoints import ready_endpoint
from localcluster.apiserver.store import Store


class CallFailed(Exception):
    """The webhook gave no usable answer; the failurePolicy decides what that means."""


class WebhookClient:
    """Posts reviews. One connection pool per address and CA bundle."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pools: dict[tuple[str, int, str, str], urllib3.HTTPSConnectionPool] = {}

    async def post(self, config: Mapping[str, Any], review: dict[str, Any], seconds: float) -> Any:
        """The decoded answer, awaited for at most `seconds`; raises CallFailed."""
        host, port, name, path = self._target(config)
        url = f"https://{name}:{port}{path}?timeout={seconds:g}s"
        try:
            pool = self._pool(host, port, name, config.get("caBundle") or "")
            body = orjson.dumps(review)
            return await asyncio.to_thread(_post, pool, f"{path}?timeout={seconds:g}s", body, seconds)
        except (urllib3.exceptions.HTTPError, ssl.SSLError, OSError, ValueError) as error:
            raise CallFailed(f'Post "{url}": {error}') from error

    def _target(self, config: Mapping[str, Any]) -> tuple[str, int, str, str]:
        """Address and port to connect to, the name in the certificate, and the path."""
        if "url" in config:
            parts = urlsplit(config["url"])
            host = parts.hostname or ""
            return host, parts.port or 443, host, parts.path or "/"
        service = config["service"]
        namespace, name, port = service["namespace"], service["name"], service.get("port", 443)
        host, target = self._endpoint(namespace, name, port)
        return host, target, f"{name}.{namespace}.svc", service.get("path") or "/"

    def _endpoint(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        service = self._store.get(("", "services"), namespace, name)
        if service is None:
            raise CallFailed(f'service "{name}" not found')
        ports = service.content["spec"].get("ports") or ()
        wanted = next((p for p in ports if p["port"] == port), None)
        if wanted is None:
            raise CallFailed(f'service "{name}" has no port {port}')
        endpoint = ready_endpoint(self._store, namespace, name, wanted.get("name", ""))
        if endpoint is None:
            raise CallFailed(f'no endpoints available for service "{name}"')
        return endpoint

    def _pool(self, host: str, port: int, name: str, bundle: str) -> urllib3.HTTPSConnectionPool:
        key = (host, port, name, bundle)
        if key not in self._pools:
            context = ssl.create_default_context(cadata=base64.b64decode(bundle).decode() if bundle else None)
            self._pools[key] = urllib3.HTTPSConnectionPool(
                host, port, maxsize=16, retries=False, ssl_context=context, server_hostname=name, assert_hostname=name
            )
        return self._pools[key]


def _post(pool: urllib3.HTTPSConnectionPool, path: str, body: bytes, timeout: float) -> Any:
    headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
    response = pool.urlopen("POST", path, body=body, headers=headers, timeout=timeout, retries=False)
    if response.status != 200:
        raise CallFailed(f"the server answered with HTTP status {response.status}")
    return orjson.loads(response.data)
