"""Runs inside a test's host namespace: one call of ContainerNetwork, or a daemon's raw socket for many.

python -m tests.abbot_container.driver SETTINGS METHOD    protobuf JSON on stdin, an outcome in JSON on stdout
python -m tests.abbot_container.driver SETTINGS serve SOCKET
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from abbot import client
from abbot.container.network import ContainerNetwork, open_container_network
from abbot.container.settings import ContainerSettings
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request, pack_response, unpack_request
from edgefarm.errors import EdgefarmError

REQUESTS = {
    "ensure_config": pb.ContainerNetworkConfigEnsureRequest,
    "query_config": pb.ContainerNetworkConfigQueryRequest,
    "ensure": pb.ContainerNetworkEnsureRequest,
    "restore": pb.ContainerNetworkRestoreRequest,
    "delete": pb.ContainerNetworkDeleteRequest,
    "query": pb.ContainerNetworkQueryRequest,
}


class Log:
    """Lines on stderr; structlog itself takes longer to import than a call takes."""

    def info(self, event: str, **fields: Any) -> None:
        print("info:", event, fields, file=sys.stderr)

    def warning(self, event: str, **fields: Any) -> None:
        print("warning:", event, fields, file=sys.stderr)


def opened(text: str) -> ContainerNetwork:
    given = json.loads(text)
    settings = ContainerSettings(
        data_dir=Path(given["data_dir"]),
        plugin_dirs=tuple(map(Path, given["plugin_dirs"])),
        bridge=given["bridge"],
        mtu=given["mtu"],
        template=Path(given["template"]) if given["template"] else None,
        masquerade=given["masquerade"],
    )
    return open_container_network(settings, Log())


def call(network: ContainerNetwork, method: str, request: Any) -> Any:
    return getattr(network, method)(request)


def once(network: ContainerNetwork, method: str) -> dict[str, Any]:
    answer = call(network, method, json_format.Parse(sys.stdin.read(), REQUESTS[method]()))
    return {"answer": None if answer is None else json_format.MessageToDict(answer, preserving_proto_field_name=True)}


def serve(network: ContainerNetwork, socket: str) -> None:
    """The raw frames of docs/mesh.md; requests one at a time."""
    lock = threading.Lock()
    methods = {message: method for method, message in REQUESTS.items()}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            size = int.from_bytes(self.rfile.read(4), "big")
            try:
                request = unpack_request(self.rfile.read(size))
                with lock:
                    answer = pack_response(call(network, methods[type(request)], request))
                status = 0
            except EdgefarmError as error:
                status, answer = 1, str(error).encode()
            self.wfile.write(bytes([status]) + len(answer).to_bytes(4, "big") + answer)

    class Server(socketserver.ThreadingUnixStreamServer):
        request_queue_size = 64

    with Server(client.raw_socket(socket), Handler) as server:
        server.serve_forever()


def tell(socket: str, config: str) -> None:
    """Have the daemon at `socket` take over the host's subnets."""
    request = json_format.Parse(config, pb.ContainerNetworkConfigEnsureRequest())
    client.call(socket, pack_request(request), timeout=30)


def main() -> None:
    settings, method, *more = sys.argv[1:]
    try:
        network = opened(settings)
        if method == "serve":
            serve(network, *more)
        outcome = once(network, method)
    except EdgefarmError as error:
        outcome = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
