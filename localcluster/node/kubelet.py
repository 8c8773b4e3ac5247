"""The part of a kubelet's HTTPS API that an API server needs to show containers' logs."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aiohttp import web

from localcluster.node.container import Container
from localcluster.node.logs import LogOptions, LogRefused, Output
from localcluster.stack import Authority

#: Finds a container by namespace, pod and name; None: there is no such container here.
FindContainer = Callable[[str, str, str], Container | None]


def server_context(folder: Path, hosts: list[str], client_ca: str) -> ssl.SSLContext:
    """A self-made certificate for `hosts`; clients must show one that `client_ca` (PEM) issued.

    That is the API server's own authority: whoever else has a client certificate of it may read logs, too, because
    there is no SubjectAccessReview as in a real kubelet. Without an authority nobody gets in.
    """
    certificate, key = Authority.create(folder).issue("kubelet", hosts)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    if client_ca:
        context.load_verify_locations(cadata=client_ca)
    return context


@contextlib.asynccontextmanager
async def serving(
    find: FindContainer, listeners: Sequence[socket.socket], context: ssl.SSLContext
) -> AsyncIterator[None]:
    """Answer `GET /containerLogs/{namespace}/{pod}/{container}` on these sockets, and close them in the end."""
    app = web.Application()
    app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", functools.partial(_logs, find))
    # A client that goes away while there is nothing to send is noticed by the cancellation only.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    try:
        for listener in listeners:
            await web.SockSite(runner, listener, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()


async def _logs(find: FindContainer, request: web.Request) -> web.StreamResponse:
    namespace, pod, name = (request.match_info[part] for part in ("namespace", "pod", "container"))
    container = find(namespace, pod, name)
    if container is None:
        return web.Response(status=404, text=f'container "{name}" of pod "{namespace}/{pod}" is not on this node')
    try:
        options = LogOptions.parse(request.query)
        output = _output(container, pod, previous=options.previous)
    except LogRefused as error:
        return web.Response(status=400, text=str(error))
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    async with contextlib.aclosing(output.read(options)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    return response


def _output(container: Container, pod: str, *, previous: bool) -> Output:
    found = container.output(previous=previous)
    if found is not None:
        return found
    where = f'container "{container.view.name}" in pod "{pod}"'
    if previous:
        raise LogRefused(f"previous terminated {where} not found")
    waiting = container.view.state.get("waiting") or {}
    raise LogRefused(f"{where} is waiting to start: {waiting.get('reason', 'unknown')}")
