"""One API server with our kinds per test process, objects with statuses in it, and the command line run against it."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cli.__main__ import build
from edgefarm.api.crd import definitions
from edgefarm.vault import Vault
from edgefarm.vault.transport import Operation
from localcluster.kubernetes import LocalApiServer
from reconciler.ports import EDGE_DEVICE, EDGE_NETWORK, NETWORK, POD, POLICY, STREAM, Kind
from tests.apiserver.rest import Rest

Json = dict[str, Any]
_numbers = itertools.count(1)
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalApiServer]:
    """An API server that serves our kinds."""
    server = LocalApiServer.start(tmp_path_factory.mktemp("kubernetes"))
    rest = Rest(server.url, server.ca, server.admin_token)
    for definition in definitions().values():
        rest.create(_CRDS, definition)
    for kind in (NETWORK, POLICY, EDGE_NETWORK, STREAM, EDGE_DEVICE):
        _await_served(rest, kind)
    yield server
    server.stop()


def _await_served(rest: Rest, kind: Kind) -> None:
    for _ in range(200):
        if rest.get(kind.path()).status == 200:
            return
    raise AssertionError(f"{kind.plural} are not served")


@dataclass(frozen=True)
class Cluster:
    """The API server as one test uses it: with a controller and a workload namespace of its own."""

    rest: Rest
    kubeconfig: Path
    controller: str
    namespace: str

    def make(self, kind: Kind, name: str, spec: Json, status: Json | None = None, **metadata: Any) -> Json:
        """An object with this status, in the namespace where its kind lives."""
        namespace = self.namespace if kind in (POLICY, STREAM, POD) else self.controller
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        made = self.rest.create(kind.path(namespace), body)
        if status is not None:
            answer = self.rest.patch(kind.path(namespace, name, "status"), {"status": status})
            assert answer.status == 200, answer
        return made

    def network(self, name: str = "plant", status: Json | None = None, **spec: Any) -> Json:
        """A Network that lists the workload namespace and is ready unless `status` says something else."""
        status = {"conditions": [ready()], "account": "A" * 56} if status is None else status
        return self.make(NETWORK, name, {"namespaces": [self.namespace], **spec}, status)

    def policy(self, name: str, network: str = "plant", accounts: tuple[str, ...] = (), **spec: Any) -> Json:
        """A Policy that is in effect for the service accounts."""
        status = {"conditions": [ready()], "network": network, "serviceAccounts": [name, *accounts]}
        return self.make(POLICY, name, {"network": network, **spec}, status)


def ready(status: str = "True", reason: str = "Reconciled", message: str = "all is well", **more: Any) -> Json:
    """The condition Ready, or with `type` another one."""
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-03-01T12:00:00Z",
        **more,
    }


@pytest.fixture
def cluster(api: LocalApiServer) -> Cluster:
    number = next(_numbers)
    cluster = Cluster(
        Rest(api.url, api.ca, api.admin_token), api.kubeconfig, f"network-{os.getpid()}-{number}", f"shop-{number}"
    )
    for name in (cluster.controller, cluster.namespace):
        cluster.rest.create("/api/v1/namespaces", {"metadata": {"name": name}})
    return cluster


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Json:
        parsed: Json = json.loads(self.out)
        return parsed


@pytest.fixture(scope="session")
def app() -> typer.Typer:
    """The command line."""
    return build()


@pytest.fixture
def edgefarm(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ended]:
    """Runs `edgefarm ARGUMENTS` with no environment but the given one, and a home without a kubeconfig or token."""

    def run(*arguments: str, **environ: str) -> Ended:
        for name in list(os.environ):
            if name.startswith(("VAULT_", "BAO_", "KUBE")):
                monkeypatch.delenv(name)
        result = CliRunner().invoke(app, list(arguments), env={"HOME": str(tmp_path), **environ})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def ask(edgefarm: Callable[..., Ended], cluster: Cluster) -> Callable[..., Ended]:
    """Runs `edgefarm` as the administrator of the test's cluster."""

    def run(*arguments: str, **environ: str) -> Ended:
        chosen = ["--kubeconfig", str(cluster.kubeconfig), "--controller-namespace", cluster.controller]
        return edgefarm(*arguments, *chosen, **environ)

    return run


def make_token(vault: Vault, *policies: str) -> str:
    """A Vault token with these policies and not even the default one."""
    body = {"policies": list(policies), "no_default_policy": True}
    answer = vault.transport.send(Operation("make token", "POST", write=True), "auth/token/create", body)
    assert answer is not None
    return str(answer["auth"]["client_token"])
