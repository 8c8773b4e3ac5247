"""The bare Starlette application that the webhook is measured beside: it parses a review and answers a constant patch.

`python -m tests.bench.bare PORT CERTIFICATE KEY`; uvloop, httptools and orjson, one process, no logs, no metrics.
"""

from __future__ import annotations

import base64
import socket
import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_OPERATION = {"op": "add", "path": "/metadata/annotations", "value": {"example.org/injected": "true"}}
_PATCH = base64.b64encode(orjson.dumps([_OPERATION])).decode()


async def mutate(request: Request) -> Response:
    """Read, parse, answer."""
    review = orjson.loads(await request.body())
    response = {"uid": review["request"]["uid"], "allowed": True, "patchType": "JSONPatch", "patch": _PATCH}
    body = orjson.dumps({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})
    return Response(body, media_type="application/json")


def main() -> None:
    """Serve on loopback until SIGTERM; several processes may share the port."""
    port, certificate, key = sys.argv[1:]
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", int(port)))
    config = uvicorn.Config(
        Starlette(routes=[Route("/mutate", mutate, methods=["POST"])]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
