"""The hub's listener for leaf nodes, with a real leaf."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

from localcluster.process import LocalProcess
from localcluster.stack import Authority, NatsServer, find_program
from tests.noderunner.workloads import eventually


async def test_a_leaf_connects_over_tls_and_again_after_the_hub_came_back_on_its_ports(
    authority: Authority, work: Path
) -> None:
    hub = NatsServer.start(work / "hub", authority, leaf_port=0)
    config = work / "leaf.conf"
    config.write_text(
        f'port: -1\nleafnodes {{ reconnect: "200ms", remotes: [{{ url: "{hub.leaf_url}", '
        f'tls {{ ca_file: "{authority.certificate}" }} }}] }}\n'
    )
    leaf = LocalProcess.start("leaf", [find_program("nats-server"), "-c", str(config)], log=work / "leaf.log")
    try:
        await eventually(lambda: leafs_of(hub), "the leaf is connected")
        port, leaf_port = (int(url.rpartition(":")[2]) for url in (hub.url, hub.leaf_url))
        await asyncio.to_thread(hub.stop)
        hub = NatsServer.start(work / "hub", authority, port=port, leaf_port=leaf_port)
        await eventually(lambda: leafs_of(hub), "the leaf is connected again")
    finally:
        leaf.stop()
        hub.stop()


def test_a_server_that_no_leaf_was_announced_to_does_not_listen_for_any(authority: Authority, work: Path) -> None:
    server = NatsServer.start(work / "plain", authority)
    try:
        assert server.leaf_url == ""
        assert not leafs_of(server)
    finally:
        server.stop()


def leafs_of(server: NatsServer) -> list[dict[str, Any]]:
    """The leaf connections that the server's monitor lists."""
    with urllib.request.urlopen(f"{server.monitor}/leafz", timeout=5) as answer:
        return list(json.loads(answer.read()).get("leafs") or [])
