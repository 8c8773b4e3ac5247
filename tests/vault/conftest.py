"""Fixtures of the Vault tests: mounts of their own in the shared OpenBao, and a bootstrapped set of them."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from edgefarm import names
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings, VaultSetup
from localcluster.stack import Authority, OpenBao
from reconciler.bootstrap import BootstrapResult, BootstrapSettings, bootstrap
from tests.vault.reviewer import TokenReviewer

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def kubernetes(reviewer: TokenReviewer) -> KubernetesAuth:
    """How Vault reaches the reviewer."""
    return KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem)


@pytest.fixture(scope="session")
def fresh_settings(openbao: OpenBao, authority: Authority) -> Callable[[], VaultSettings]:
    """Makes settings whose mounts nobody has used."""

    def make() -> VaultSettings:
        number = next(_numbers)
        return VaultSettings(
            address=openbao.address,
            ca_pem=authority.pem,
            auth_mount=f"kubernetes-{number}",
            transit_mount=f"transit-{number}",
            kv_mount=f"kv-{number}",
        )

    return make


@pytest.fixture(scope="session")
def vault(fresh_settings: Callable[[], VaultSettings], openbao: OpenBao, kubernetes: KubernetesAuth) -> Vault:
    """An administrator's client of empty mounts."""
    client = Vault(fresh_settings(), token=openbao.root_token)
    setup = VaultSetup(client)
    setup.ensure_mounts()
    setup.configure_auth(kubernetes)
    await_documents(client)
    return client


@pytest.fixture(scope="session")
def bootstrap_settings(kubernetes: KubernetesAuth) -> BootstrapSettings:
    """What the bootstrap is told in these tests."""
    return BootstrapSettings(
        kubernetes=kubernetes, controller_namespace="network", controller_service_account="network-controller"
    )


@pytest.fixture
def admin(
    fresh_settings: Callable[[], VaultSettings], openbao: OpenBao, bootstrap_settings: BootstrapSettings
) -> Vault:
    """An administrator's client of bootstrapped mounts."""
    client = Vault(fresh_settings(), token=openbao.root_token)
    run_bootstrap(client, bootstrap_settings)
    return client


@pytest.fixture
def controller(admin: Vault, reviewer: TokenReviewer) -> Vault:
    """The reconciler's own client of the mounts of `admin`."""
    client = Vault(admin.settings)
    client.login(names.CONTROLLER_ROLE, reviewer.token("network", "network-controller"))
    return client


def run_bootstrap(vault: Vault, settings: BootstrapSettings) -> BootstrapResult:
    """One run with the tests' clock."""
    return bootstrap(vault, settings, now=NOW, random=lambda: secrets.token_hex(16))


def await_documents(vault: Vault) -> None:
    """Return when a KV mount that was just enabled answers."""
    deadline = time.monotonic() + 10
    while not VaultSetup(vault).documents_ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)
