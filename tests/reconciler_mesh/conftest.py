"""Fixtures of the EdgeDevice controller's tests: one API server and Vault per test process, a mesh per test."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from edgefarm.api.crd import definitions
from edgefarm.vault import Vault
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.configuration import DATA_KEY, Configuration, parse_configuration
from reconciler.ports import NAMESPACE
from reconciler.settings import read_kubernetes_settings
from tests.conftest import mounted_vault
from tests.reconciler.world import install_definitions
from tests.reconciler_mesh.world import AdminVault, MeshWorld, Systems, running
from tests.vault.reviewer import TokenReviewer


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the local one, or a real one where KUBEBUILDER_ASSETS is set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("apiserver"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> Iterator[Vault]:
    """An administrator's client of mounts of this area."""
    client = mounted_vault(openbao, authority, reviewer, "mesh")
    yield client
    client.close()


@pytest.fixture
def configuration(vault: Vault) -> Configuration:
    """A mesh with the defaults."""
    text = {
        "vault": {"address": vault.settings.address},
        "nats": {"urls": ["tls://nats.example:4222"]},
        "mesh": {"enabled": True, "podCIDRs": ["10.42.0.0/16"], "serviceCIDRs": ["10.43.0.0/16"]},
    }
    return parse_configuration({DATA_KEY: yaml.safe_dump(text)})


@pytest.fixture
async def world(api_server: ApiServer, vault: Vault, configuration: Configuration) -> AsyncIterator[MeshWorld]:
    """A running reconciler in a namespace of its own, without hosts."""
    kube = await KubeClient.connect(read_kubernetes_settings({"KUBECONFIG": str(api_server.kubeconfig)}))
    namespace = f"mesh-{secrets.token_hex(4)}"
    try:
        await install_definitions(kube, list(definitions().values()))
        await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        systems = Systems(kube, namespace, AdminVault(vault), str(api_server.kubeconfig))
        async with running(MeshWorld(systems, configuration)) as made:
            yield made
    finally:
        await kube.close()
