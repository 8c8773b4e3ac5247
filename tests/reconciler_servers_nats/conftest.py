"""A cluster for these tests: an API server, and a node that runs nats-servers and resolves their names."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from localcluster.client import SERVICE_ACCOUNTS, Client
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.process import LocalProcess
from reconciler.adapters.kube import KubeClient
from reconciler.ports import NAMESPACE
from reconciler.settings import read_settings
from tests.reconciler_servers_nats.installation import Installation

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: a real one from KUBEBUILDER_ASSETS, or localcluster's own."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("api"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def nodes(api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One node, and what makes pods of StatefulSets; the folder with its volumes and logs."""
    if os.geteuid() != 0:
        pytest.skip("names of pods are resolved in mount namespaces, which need root")
    folder = tmp_path_factory.mktemp("nodes")
    command = [sys.executable, "-m", "localcluster.nodes", "--kubeconfig", str(api.kubeconfig)]
    command += ["--data-dir", str(folder), "--cluster-dns"]
    process = LocalProcess.start("nodes", command, log=folder / "runner.log")
    yield folder
    process.stop()


@pytest.fixture
async def kube(api: ApiServer) -> AsyncIterator[KubeClient]:
    settings = read_settings(
        {"EDGEFARM_POD_NAME": "test", "KUBECONFIG": str(api.kubeconfig), "EDGEFARM_VAULT_TOKEN_FILE": "unused"}
    )
    client = await KubeClient.connect(settings.kubernetes)
    yield client
    await client.close()


@pytest.fixture
async def installation(api: ApiServer, nodes: Path, kube: KubeClient) -> AsyncIterator[Installation]:
    """The controller at work in a namespace of this test's own."""
    name = f"network-{next(_numbers)}"
    await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    async with Client.from_kubeconfig(api.kubeconfig) as client:
        await client.wait_for(SERVICE_ACCOUNTS, "default", name, until=lambda account: account is not None)
    async with Installation.running(api, kube, name) as running:
        yield running
    await kube.delete(NAMESPACE, None, name)
