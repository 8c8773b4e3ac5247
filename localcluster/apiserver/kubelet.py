"""Asks the kubelet of a pod's node for containers' logs, and hands on what it answers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import aiohttp
from starlette.responses import Response

from localcluster.apiserver.failures import ApiError, bad_request, not_found
from localcluster.apiserver.resources import builtin
from localcluster.apiserver.store import Json, Store
from localcluster.apiserver.streaming import StreamedLines

_OPTIONS: Final = ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"]
_ANSWER_SECONDS: Final = 10.0


class KubeletClient:
    """Speaks to kubelets as the API server, which proves itself with a client certificate."""

    def __init__(self, store: Store, certificate: Path, key: Path) -> None:
        self._store = store
        # As a kube-apiserver without --kubelet-certificate-authority: a kubelet made its certificate itself.
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.load_cert_chain(certificate, key)

    async def log(self, pod: Json, query: Mapping[str, str]) -> Response:
        """The log of the container that the query names; nothing while the pod is on no node."""
        metadata = pod["metadata"]
        container = _container(pod, query.get("container", ""))
        node = pod["spec"].get("nodeName")
        if not node:
            return Response(status_code=204)
        options = urlencode([(name, query[name]) for name in _OPTIONS if name in query])
        path = f"/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}"
        pieces = self._read(f"https://{self._address(node)}{path}{'?' if options else ''}{options}")
        await anext(pieces)  # what goes wrong before the first byte is still an answer of its own
        return StreamedLines(pieces, "text/plain")

    def _address(self, node: str) -> str:
        found = self._store.get(("", "nodes"), "", node)
        if found is None:
            raise not_found(builtin("", "nodes"), node)
        status = found.content.get("status") or {}
        addresses = {entry["type"]: entry["address"] for entry in reversed(status.get("addresses") or ())}
        for kind in ("InternalIP", "ExternalIP", "Hostname"):
            if kind in addresses:
                port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
                return f"{addresses[kind]}:{port}"
        raise ApiError(500, "InternalError", f"no preferred addresses found for node {node}")

    async def _read(self, url: str) -> AsyncIterator[bytes]:
        """An empty piece once the kubelet has agreed, then the log; raises ApiError before, ConnectionError after."""
        agreed = False
        connector = aiohttp.TCPConnector(ssl=self._context)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    answer = await session.get(url)
                    if answer.status != 200:
                        raise _refusal(answer.status, await answer.text())
                agreed = True
                yield b""
                async for piece in answer.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, TimeoutError) as error:
            if agreed:
                raise ConnectionResetError(f"the kubelet went away: {error}") from error
            raise ApiError(500, "InternalError", f'Get "{url}": {error or "no answer in time"}') from error


def _container(pod: Json, wanted: str) -> str:
    """The container whose log is meant; 400 with the names to choose from."""
    name, spec = pod["metadata"]["name"], pod["spec"]
    groups = [[entry["name"] for entry in spec.get(key) or ()] for key in ("containers", "initContainers")]
    if wanted in (*groups[0], *groups[1]):
        return wanted
    if not wanted and len(groups[0]) == 1:
        return str(groups[0][0])
    choice = f"choose one of: [{' '.join(groups[0])}]"
    if groups[1]:
        choice += f" or one of the init containers: [{' '.join(groups[1])}]"
    if wanted:
        raise bad_request(f"container {wanted} is not valid for pod {name}, {choice}")
    raise bad_request(f"a container name must be specified for pod {name}, {choice}")


def _refusal(status: int, text: str) -> ApiError:
    reason = {400: "BadRequest", 404: "NotFound"}.get(status, "InternalError")
    return ApiError(status if status in (400, 404) else 500, reason, text)
