"""Runs inside a test's host namespace: one call of ContainerNetwork, or a daemon's raw socket for many.

python -m tests.abbot_container.driver SETTINGS METHOD    protobuf JSON on stdin, an outcome in JSON on stdout
python -m tests.abbot_container.driver SETTINGS serve SOCKET
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from abbot.container.network import ContainerNetwork, open_container_network
from abbot.container.settings import ContainerSettings
from edgefarm.abbotproto import abbot_pb2 as pb
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


def once(network: ContainerNetwork, method: str) -> dict[str, Any]:
    answer = getattr(network, method)(json_format.Parse(sys.stdin.read(), REQUESTS[method]()))
    return {"answer": None if answer is None else json_format.MessageToDict(answer, preserving_proto_field_name=True)}


def main() -> None:
    settings, method = sys.argv[1:]
    try:
        outcome = once(opened(settings), method)
    except EdgefarmError as error:
        outcome = {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
