"""Sends one request to the Kubernetes API: address, credentials, TLS, time limits, and what an error answer means.

With `kube.py` the only importer of the official client.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import load_kube_config

from edgefarm import __version__
from edgefarm.errors import Conflict, EdgefarmError, KubernetesRefused, KubernetesUnavailable, SettingsError
from reconciler.ports import Kind, Object
from reconciler.settings import KubernetesSettings

_CONNECT_SECONDS: Final = 5.0
_TOTAL_SECONDS: Final = 15.0
_METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "watch": "GET",
    "create": "POST",
    "review": "POST",
    "replace": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
#: Called with the verb and the kind of every request that is sent.
RequestHook = Callable[[str, str], None]


@dataclass(frozen=True)
class Call:
    """One request. `verb` is one of Kubernetes' own (get, list, watch, create, replace, patch, delete) or
    review: a create that stores nothing."""

    verb: str
    kind: Kind
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    seconds: float = _TOTAL_SECONDS


class TokenFile:
    """A projected service account token; the kubelet replaces the file long before the token expires."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._token = ""

    def read(self) -> str:
        """The token as it is in the file now; KubernetesUnavailable when there is none."""
        try:
            stat = self._path.stat()
            if self._seen != (stat.st_mtime_ns, stat.st_ino):
                self._token = self._path.read_text().strip()
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except OSError as error:
            raise KubernetesUnavailable(f"The service account token cannot be read: {error}") from error
        return self._token


class Transport:
    """One connection pool to one API server."""

    def __init__(self, configuration: Configuration, token: TokenFile | None, on_request: RequestHook | None) -> None:
        #: What was sent, by (verb, kind).
        self.requests: Counter[tuple[str, str]] = Counter()
        self._configuration = configuration
        self._rest = RESTClientObject(configuration)
        self._token = token
        self._on_request = on_request

    @classmethod
    async def open(cls, settings: KubernetesSettings, on_request: RequestHook | None) -> Transport:
        """Use the pod's service account, else the kubeconfig file; SettingsError names what is wrong with them."""
        configuration = Configuration()
        token: TokenFile | None = None
        if settings.service_account_dir is not None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            configuration.host = f"https://{host}:{settings.port}"
            configuration.ssl_ca_cert = str(settings.service_account_dir / "ca.crt")
            token = TokenFile(settings.service_account_dir / "token")
        else:
            try:
                await load_kube_config(str(settings.kubeconfig), client_configuration=configuration)
            except Exception as error:  # the loader raises whatever a malformed file makes it trip over
                raise SettingsError([f"KUBECONFIG cannot be used: {error}"]) from error
        try:
            return cls(configuration, token, on_request)
        except OSError as error:
            raise SettingsError(
                [f"The certificate authority of the API server ({configuration.ssl_ca_cert}) cannot be read: {error}"]
            ) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()

    async def send(self, call: Call) -> RESTResponse:
        """The answer with its body still to be read; KubernetesUnavailable when there is none."""
        self.requests[call.verb, call.kind.kind] += 1
        if self._on_request is not None:
            self._on_request(call.verb, call.kind.kind)
        url = f"{self._configuration.host}{call.path}" + (f"?{urlencode(call.query)}" if call.query else "")
        headers = {
            "Accept": "application/json",
            "Content-Type": call.content_type,
            "User-Agent": f"edgefarm-network/{__version__}",
            **await self._authorization(),
        }
        timeout = aiohttp.ClientTimeout(total=call.seconds, connect=_CONNECT_SECONDS)
        try:
            return await self._rest.request(
                _METHODS[call.verb], url, headers=headers, body=call.body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error

    async def request(self, call: Call) -> Object:
        """The JSON object that is answered; raises as `ports.Kube` says."""
        response = await self.send(call)
        try:
            data = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from error
        finally:
            response.response.release()
        if response.status >= 400:
            raise error_of(response.status, data)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise KubernetesUnavailable("The Kubernetes API answered something that is not JSON.") from error
        return dict(answer)

    async def _authorization(self) -> dict[str, str]:
        if self._token is not None:
            return {"Authorization": f"Bearer {self._token.read()}"}
        bearer = (await self._configuration.auth_settings()).get("BearerToken")
        return {"Authorization": bearer["value"]} if bearer and bearer["value"] else {}

    def _unreachable(self, error: Exception) -> KubernetesUnavailable:
        return KubernetesUnavailable(
            f"The Kubernetes API at {self._configuration.host} cannot be reached: {describe(error)}."
        )


def error_of(status: int, data: bytes) -> EdgefarmError:
    """The API server's answer as one of our errors, with its own message."""
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data[:200].decode(errors="replace").strip() or f"status {status}"
    if status == 409:
        return Conflict(f"Kubernetes: {message}")
    if status == 429 or status >= 500:
        return KubernetesUnavailable(f"Kubernetes cannot serve now (status {status}): {message}")
    return KubernetesRefused(f"Kubernetes refused (status {status}): {message}", status)


def describe(error: BaseException) -> str:
    """What went wrong on the way, in a few words."""
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
