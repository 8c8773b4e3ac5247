"""Fixtures that every area shares: real servers, started once per test process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localcluster.stack import Authority, OpenBao


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
        server.stop()


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A real, unsealed OpenBao; tests keep apart by mount names of their own."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A temporary folder."""
    return tmp_path
