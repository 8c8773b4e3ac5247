"""Fixtures that every area shares: real servers, started once per test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgefarm.vault import KubernetesAuth, Vault, VaultSettings, VaultSetup
from localcluster.stack import Authority, OpenBao
from tests.vault.reviewer import TokenReviewer


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for the servers of this test process."""
    return Authority.create(tmp_path_factory.mktemp("pki"))


@contextmanager
def running_openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """For areas that bootstrap once per process: the policy `networkcontroller` is one for the whole server."""
    server = OpenBao.start(tmp_path_factory.mktemp("openbao"), authority)
    try:
        yield server
    finally:
        server.process.stop(grace=0)  # nobody needs its data, and an orderly end takes it a second


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A real, unsealed OpenBao; tests keep apart by mount names of their own."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture(scope="session")
def reviewer(authority: Authority) -> Iterator[TokenReviewer]:
    """Issues service account tokens and reviews them for Vault."""
    server = TokenReviewer.start(authority)
    yield server
    server.stop()


def mounted_vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer, area: str) -> Vault:
    """An administrator's client of mounts that only the tests of one area use."""
    settings = VaultSettings(
        address=openbao.address,
        ca_pem=authority.pem,
        auth_mount=f"{area}-kubernetes",
        transit_mount=f"{area}-transit",
        kv_mount=f"{area}-kv",
    )
    client = Vault(settings, token=openbao.root_token)
    setup = VaultSetup(client)
    setup.ensure_mounts()
    setup.configure_auth(KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem))
    return client


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A temporary folder."""
    return tmp_path
