"""One world and one network per test module, which tests break and which a reconciler then mends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from edgefarm.api.crd import definitions
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.settings import KubernetesSettings
from tests.conftest import running_openbao
from tests.reconciler.world import World, install_definitions, make_namespace, running
from tests.reconciler_diagnostics.clinic import FACTORY, OFFICE, Clinic


@pytest.fixture(scope="module")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A server of this module's own, because its policies are changed."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Authority, openbao: OpenBao) -> Iterator[World]:
    """The outside systems."""
    started = World.start(tmp_path_factory.mktemp("world"), authority, openbao)
    yield started
    started.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clinic(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Clinic]:
    """A healthy network, and the page that is asked about it."""
    folder: Path = tmp_path_factory.mktemp("clinic")
    kube = await KubeClient.connect(KubernetesSettings(None, "", 0, world.api.kubeconfig))
    try:
        await install_definitions(kube, list(definitions().values()))
        for namespace in (FACTORY, OFFICE):
            await make_namespace(kube, namespace)
    finally:
        await kube.close()
    async with running(world, folder) as reconciler:
        made = Clinic(reconciler, folder / "vault-token")
        await made.open()
        yield made
