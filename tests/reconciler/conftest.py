"""Fixtures of the controllers' tests: one world per test process, one reconciler and names of its own per test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.crd import definitions
from edgefarm.nats import jwt
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.kube import KubeClient
from reconciler.ports import NETWORK, POLICY, SERVICE_ACCOUNT, Kind, Object
from reconciler.settings import KubernetesSettings
from tests.conftest import running_openbao
from tests.reconciler.world import Reconciler, World, install_definitions, make_namespace, running

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def openbao(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[OpenBao]:
    """A server of this area's own, because its bootstrap must stay as it is."""
    with running_openbao(tmp_path_factory, authority) as server:
        yield server


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Authority, openbao: OpenBao) -> Iterator[World]:
    """The outside systems."""
    started = World.start(tmp_path_factory.mktemp("world"), authority, openbao)
    yield started
    started.stop()


@dataclass
class Site:
    """One test's corner of the world: a network name and two namespaces that nobody else uses."""

    reconciler: Reconciler
    network: str
    factory: str
    office: str

    @property
    def world(self) -> World:
        return self.reconciler.world

    async def make_network(self, name: str | None = None, namespaces: list[str] | None = None, **spec: Any) -> Object:
        """Create a Network, by default the site's with both namespaces."""
        wanted = [self.factory, self.office] if namespaces is None else namespaces
        body = _object(NETWORK, names.CONTROLLER_NAMESPACE, name or self.network, {"namespaces": wanted, **spec})
        return await self.reconciler.kube.create(NETWORK, body)

    async def make_policy(self, name: str, namespace: str | None = None, **spec: Any) -> Object:
        """Create a Policy, by default in the factory."""
        body = _object(POLICY, namespace or self.factory, name, spec)
        return await self.reconciler.kube.create(POLICY, body)

    async def edit(self, kind: Kind, name: str, namespace: str | None = None, **patch: Any) -> Object:
        """Merge `patch` into an object."""
        where = namespace or (names.CONTROLLER_NAMESPACE if kind is NETWORK else self.factory)
        return await self.reconciler.kube.patch(kind, where, name, patch)

    async def annotate(self, policy: str, **annotations: str) -> Object:
        """Set annotations (without their prefix, `_` for `-`) on a Policy in the factory."""
        wanted = {f"{names.PREFIX}{name.replace('_', '-')}": value for name, value in annotations.items()}
        return await self.edit(POLICY, policy, metadata={"annotations": wanted})

    async def delete(self, kind: Kind, name: str, namespace: str | None = None) -> None:
        """Delete an object."""
        where = namespace or (names.CONTROLLER_NAMESPACE if kind is NETWORK else self.factory)
        await self.reconciler.kube.delete(kind, where, name)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """An object as it is now."""
        where = namespace or (names.CONTROLLER_NAMESPACE if kind is NETWORK else self.factory)
        return await self.reconciler.kube.get(kind, where, name)

    async def make_namespace(self, name: str) -> None:
        """Create one more namespace."""
        await make_namespace(self.reconciler.kube, name)

    async def make_service_account(self, name: str) -> None:
        """Create a service account in the factory."""
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": self.factory}}
        await self.reconciler.kube.create(SERVICE_ACCOUNT, body)

    async def account(self, network: str | None = None) -> str:
        """Public key of the network's account, from its status."""
        obj = await self.get(NETWORK, network or self.network)
        assert obj is not None
        return str(obj["status"]["account"])

    async def signing_keys(self, network: str) -> list[str]:
        """The scoped keys of Policies and leafs in the account as the server holds it."""
        (answer,) = await self.reconciler.context.nats().lookup(await self.account(network))
        assert answer.jwt is not None
        entries = jwt.decode(answer.jwt)["nats"]["signing_keys"]
        return [entry["key"] for entry in entries if entry["role"] != "controller"]

    async def condition(self, kind: Kind, name: str, type_: str, namespace: str | None = None) -> tuple[str, str, str]:
        """Status, reason and message of a condition; empty when it is absent."""
        obj = await self.get(kind, name, namespace)
        assert obj is not None
        for each in (obj.get("status") or {}).get("conditions") or ():
            if each["type"] == type_:
                return each["status"], each["reason"], each["message"]
        return "", "", ""


def _object(kind: Kind, namespace: str, name: str, spec: dict[str, Any]) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


@pytest.fixture
async def site(world: World, work: Path) -> AsyncIterator[Site]:
    """A reconciler, and names for this test."""
    kube = await KubeClient.connect(KubernetesSettings(None, "", 0, world.api.kubeconfig))
    number = next(_numbers)
    here = (f"net{number}", f"factory{number}", f"office{number}")
    try:
        await install_definitions(kube, list(definitions().values()))
        for namespace in here[1:]:
            await make_namespace(kube, namespace)
    finally:
        await kube.close()
    async with running(world, work) as reconciler:
        reconciler.woken.clear()
        yield Site(reconciler, *here)
