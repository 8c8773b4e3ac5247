"""Fixtures of the runtime's tests: a bootstrapped Vault of its own, and settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgefarm.vault import KubernetesAuth, Vault, VaultSettings
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.bootstrap import BootstrapResult, BootstrapSettings, bootstrap
from reconciler.ports import NAMESPACE
from reconciler.settings import Settings, read_kubernetes_settings, read_settings
from tests.conftest import running_openbao
from tests.vault.reviewer import TokenReviewer


@dataclass(frozen=True)
class BootstrappedVault:
    """Mounts that the bootstrap has set up, an administrator's client of them, and who issues tokens."""

    admin: Vault
    result: BootstrapResult
    reviewer: TokenReviewer

    @property
    def settings(self) -> VaultSettings:
        return self.admin.settings


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A server of this area's own, because its bootstrap must stay as it is."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture(scope="session")
def bootstrapped(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> BootstrappedVault:
    """Vault after the bootstrap, in mounts of its own."""
    settings = VaultSettings(
        address=openbao.address,
        ca_pem=authority.pem,
        auth_mount="runtime-kubernetes",
        transit_mount="runtime-transit",
        kv_mount="runtime-kv",
    )
    admin = Vault(settings, token=openbao.root_token)
    wanted = BootstrapSettings(
        kubernetes=KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem),
        controller_namespace="network",
        controller_service_account="network-controller",
    )
    result = bootstrap(admin, wanted, now=datetime.now(UTC), random=lambda: secrets.token_hex(16))
    return BootstrappedVault(admin, result, reviewer)


@pytest.fixture
def token_file(work: Path, reviewer: TokenReviewer) -> Path:
    """The reconciler's projected token for Vault."""
    path = work / "vault-token"
    path.write_text(reviewer.token("network", "network-controller"))
    return path


@pytest.fixture
def settings(work: Path) -> Settings:
    """What a reconciler's environment says."""
    return read_settings(
        {
            "EDGEFARM_POD_NAME": "controller-0",
            "KUBECONFIG": str(work / "kubeconfig"),
            "EDGEFARM_VAULT_TOKEN_FILE": str(work / "vault-token"),
        }
    )


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the local one, or a real one where KUBEBUILDER_ASSETS is set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("apiserver"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture
async def kube(api_server: ApiServer) -> AsyncIterator[KubeClient]:
    """An administrator's client whose watches end after two seconds."""
    settings = read_kubernetes_settings({"KUBECONFIG": str(api_server.kubeconfig)})
    client = await KubeClient.connect(settings, watch_seconds=2)
    yield client
    await client.close()


@pytest.fixture
async def namespace(kube: KubeClient) -> str:
    """A namespace that nobody else uses."""
    name = f"test-{secrets.token_hex(4)}"
    await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name
