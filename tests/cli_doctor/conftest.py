"""One installation per test module, and the command that is run against it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.__main__ import build
from edgefarm import pki
from localcluster.kubernetes import ApiServer, LocalApiServer, start_api_server
from localcluster.process import LocalProcess, accepts, free_port
from tests.apiserver.rest import Rest
from tests.cli_doctor.ward import Pages, Ward, serving


@dataclass(frozen=True)
class Told:
    """What `edgefarm doctor` said, and its exit status."""

    status: int
    out: str

    @property
    def document(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    def codes(self, *statuses: str) -> set[str]:
        """Codes of the findings with one of these statuses."""
        return {each["code"] for each in self.document["findings"] if each["status"] in statuses}

    @property
    def bad(self) -> set[str]:
        """Codes of what is wrong or doubtful."""
        return self.codes("error", "warning")


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the local one, or a real one where KUBEBUILDER_ASSETS is set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("kubernetes"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pages(api_server: ApiServer) -> Iterator[Pages]:
    """Who answers for the leader and for sidecars. A real API server passes nothing on to loopback addresses."""
    with serving("127.0.0.1" if isinstance(api_server, LocalApiServer) else _address_of_this_machine()) as running:
        yield running


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory, api_server: ApiServer, pages: Pages) -> Iterator[Ward]:
    """A healthy installation."""
    folder: Path = tmp_path_factory.mktemp("ward")
    authority = pki.make_authority("ward", now=datetime.now(UTC), lifetime=timedelta(days=365))
    webhook, port = _start_webhook(folder, authority)
    rest = Rest(api_server.url, api_server.ca, api_server.admin_token)
    made = Ward(rest, api_server.kubeconfig, pages, authority, port, folder)
    try:
        made.install()
        yield made
    finally:
        webhook.stop()


@pytest.fixture(autouse=True)
def nothing_found(pages: Pages) -> None:
    """The leader finds nothing and no sidecar has said anything, unless a test says otherwise."""
    pages.pages.clear()
    pages.asked.clear()
    pages.tell()


@pytest.fixture
def doctor(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """Runs `edgefarm doctor ARGUMENTS` as the administrator, or with another kubeconfig."""
    for name in list(os.environ):
        if name.startswith("KUBE"):
            monkeypatch.delenv(name)

    def run(*arguments: str, kubeconfig: Path | None = None, form: str = "json") -> Told:
        chosen = ["--kubeconfig", str(kubeconfig or ward.kubeconfig), "-o", form]
        result = CliRunner().invoke(build(), ["doctor", *arguments, *chosen])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Told(result.exit_code, result.stdout)

    return run


def _address_of_this_machine() -> str:
    """The one from which it would send to other machines; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _start_webhook(folder: Path, authority: pki.KeyPair) -> tuple[LocalProcess, int]:
    pair = pki.issue(authority, ["127.0.0.1"], now=datetime.now(UTC), lifetime=timedelta(days=1))
    certificates = folder / "certificates"
    certificates.mkdir()
    (certificates / "tls.crt").write_bytes(pair.certificate)
    (certificates / "tls.key").write_bytes(pair.private_key)
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "EDGEFARM_SIDECAR_IMAGE": "registry.example/sidecar:1",
        "EDGEFARM_VAULT_ADDR": "https://vault.example:8200",
        "EDGEFARM_NATS_URL": "tls://nats.example:4222",
        "EDGEFARM_WEBHOOK_HOST": "127.0.0.1",
        "EDGEFARM_WEBHOOK_PORT": str(port),
        "EDGEFARM_WEBHOOK_HEALTH_PORT": str(free_port()),
        "EDGEFARM_WEBHOOK_CERT_DIR": str(certificates),
        "EDGEFARM_WEBHOOK_DRAIN": "0s",
    }
    log = folder / "webhook.log"
    process = LocalProcess.start("webhook", [sys.executable, "-m", "webhook"], log=log, env=environment)
    return process.wait_until(lambda: accepts("127.0.0.1", port), "listening"), port
