"""A cluster for these tests: an API server, and workload controllers with two nodes as a process of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from localcluster.client import NAMESPACES, SERVICE_ACCOUNTS, Client
from localcluster.kubernetes import start_api_server
from localcluster.network.uplinks import Uplink
from localcluster.process import LocalProcess, free_port
from localcluster.stack import UPLINK_HOST
from tests.noderunner.workloads import Nodes, forget_node, unique


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An API server: the given one, a real one from KUBEBUILDER_ASSETS, or localcluster's own."""
    if given := os.environ.get("EDGEFARM_TEST_KUBECONFIG"):
        yield Path(given)
        return
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("api"), assets=Path(assets) if assets else None)
    yield server.kubeconfig
    server.stop()


@pytest.fixture(scope="session")
def nodes(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes with an uplink; the runner's own environment has a variable that no container may see."""
    folder = tmp_path_factory.mktemp("nodes")
    names = [unique("node"), unique("node")]
    command = [sys.executable, "-m", "localcluster.nodes", "--kubeconfig", str(kubeconfig), "--data-dir", str(folder)]
    for number, name in enumerate(names):
        command += ["--node", f"{name},localcluster.test/number={number}"]
    uplink = Uplink((UPLINK_HOST, free_port(UPLINK_HOST)), ("127.0.0.1", free_port()))
    command += ["--uplink", "=".join(f"{host}:{port}" for host, port in (uplink.listen, uplink.target))]
    process = LocalProcess.start(
        "nodes", command, log=folder / "runner.log", env={**os.environ, "NOT_FOR_CONTAINERS": "1"}
    )
    yield Nodes(process, folder, names, uplink)
    process.stop()


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(kubeconfig) as client:
        yield client


@pytest.fixture
async def spare_node(kubeconfig: Path) -> AsyncIterator[str]:
    """The name of a node for a runner of a test's own, which the test stops."""
    name = unique("node")
    yield name
    await forget_node(kubeconfig, name)


@pytest.fixture
async def namespace(kube: Client, nodes: Nodes) -> AsyncIterator[str]:
    """A namespace of one test, ready for pods."""
    name = unique("test")
    await kube.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    await kube.wait_for(SERVICE_ACCOUNTS, "default", name, until=lambda account: account is not None)
    yield name
    await kube.delete(NAMESPACES, name)
