"""The proxy subresources: hands requests on to a pod, or to a pod behind a Service, and their answers back."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from starlette.requests import Request
from starlette.responses import Response
from yarl import URL

from localcluster.apiserver import requests
from localcluster.apiserver.calls import Call
from localcluster.apiserver.endpoints import ready_endpoint
from localcluster.apiserver.failures import ApiError, bad_request, not_found
from localcluster.apiserver.store import Json, Store
from localcluster.apiserver.streaming import StreamedLines

_ANSWER_SECONDS: Final = 30.0
#: About one connection only, or the API server's own business: the caller's token must not reach a pod.
_KEPT_BACK: Final = frozenset(
    [
        "authorization",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)


class Proxy:
    """Resolves what a path names and forwards to it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # As in Kubernetes, which cannot know whom pods have their certificates from.
        self._unverified = ssl.create_default_context()
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    async def forward(self, request: Request, call: Call) -> Response:
        """The answer to what follows `/proxy` in the path; ApiError when nobody can be reached."""
        # As it came, still encoded: /api/v1/namespaces/<namespace>/pods/<name>/proxy/<path>
        path = "/".join(request.scope["raw_path"].decode("latin-1").split("/")[8:])
        url = f"{self._origin(call)}/{path}" + (f"?{request.url.query}" if request.url.query else "")
        headers = [(name, value) for name, value in request.headers.items() if _passes(name)]
        content = await requests.read_bytes(request)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._unverified),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await session.request(
                    request.method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=content or None,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            await session.close()
            why = f"error trying to reach service: {error or 'no answer in time'}"
            raise ApiError(503, "ServiceUnavailable", why) from error
        response = StreamedLines(_body(session, answer))
        response.status_code = answer.status
        response.raw_headers = [
            (name.lower(), value) for name, value in answer.raw_headers if _passes(name.decode("latin-1"))
        ]
        return response

    def _origin(self, call: Call) -> str:
        """Scheme, host and port that `[scheme:]name[:port]` means."""
        scheme, name, port = _split(call.name, call.resource.singular)
        found = self._store.get(call.resource.bucket, call.namespace, name)
        if found is None:
            raise not_found(call.resource, name)
        if call.resource.kind == "Pod":
            return f"{scheme}://{_pod_host(found.content, port)}"
        return f"{scheme}://{self._service_host(found.content, port)}"

    def _service_host(self, service: Json, port: str) -> str:
        name, offered = service["metadata"]["name"], service["spec"].get("ports") or ()
        if port.isdecimal():
            named = [one.get("name", "") for one in offered if one["port"] == int(port)]
            if not named:
                raise _unavailable(f'no service port {port} found for service "{name}"')
            port = named[0]
        endpoint = ready_endpoint(self._store, service["metadata"]["namespace"], name, port)
        if endpoint is None:
            raise _unavailable(f'no endpoints available for service "{name}"')
        return f"{endpoint[0]}:{endpoint[1]}"


def _split(text: str, kind: str) -> tuple[str, str, str]:
    parts = text.split(":")
    scheme, name, port = {1: ["", *parts, ""], 2: ["", *parts], 3: parts}.get(len(parts), ["", "", ""])
    if not name or scheme not in ("", "http", "https"):
        raise bad_request(f'invalid {kind} request "{text}"')
    return scheme or "http", name, port


def _pod_host(pod: Json, port: str) -> str:
    """The pod's address with the port asked for, else the first that it declares, else the scheme's own."""
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise bad_request("address not allowed")
    declared = [one["containerPort"] for c in pod["spec"]["containers"] for one in c.get("ports") or ()]
    port = port or str(next(iter(declared), ""))
    return f"{address}:{port}" if port else str(address)


async def _body(session: aiohttp.ClientSession, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with session, answer:
        async for piece in answer.content.iter_any():
            yield piece


def _passes(header: str) -> bool:
    return header.lower() not in _KEPT_BACK and not header.lower().startswith("impersonate-")


def _unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)
