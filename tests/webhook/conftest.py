"""Pods, settings and a real webhook process for the tests of the webhook."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonpatch
import pytest

from edgefarm import names
from localcluster.kubernetes import ApiServer, start_api_server
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority
from webhook.annotations import Mode
from webhook.decide import Decision, Inject, decide
from webhook.inject import inject
from webhook.pod import check_shape
from webhook.settings import Injection, Vault

Json = dict[str, Any]

SETTINGS = Injection(
    image="registry.example/edgefarm/network:1",
    vault=Vault("https://vault.example:8200"),
    nats_url="tls://nats.example:4222",
    ca_bundle="-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
)


def make_pod(annotations: dict[str, str] | None = None, *, mode: Mode | None = None, **spec: Any) -> Json:
    """A labelled pod of a Deployment; `spec` replaces or adds members of its spec."""
    notes = dict(annotations or {})
    if mode:
        notes[names.ANNOTATION_MODE] = mode
    metadata: Json = {
        "generateName": "publisher-6f7d8c9b5-",
        "labels": {"app": "publisher", "pod-template-hash": "6f7d8c9b5", names.LABEL_NETWORK: "foo"},
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "publisher-6f7d8c9b5", "controller": True}
        ],
    }
    if notes:
        metadata["annotations"] = notes
    base: Json = {"serviceAccountName": "sensor", "containers": [{"name": "app", "image": "example/app:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": base | spec}


def make_review(obj: Any, **request: Any) -> Json:
    """An AdmissionReview for the creation of `obj` in the namespace team-a."""
    base = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "team-a",
        "object": obj,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": base | request}


def decision_on(pod: Json, namespace: str = "team-a", settings: Injection = SETTINGS) -> Decision:
    """What is decided about a pod."""
    return decide(check_shape(pod), namespace, settings)


def operations_for(pod: Json, settings: Injection = SETTINGS) -> list[Json]:
    """The patch for a pod that must be injected."""
    decision = decision_on(pod, "team-a", settings)
    assert isinstance(decision, Inject), decision
    return copy.deepcopy(inject(check_shape(pod), decision.plan, settings))  # injections share their parts


def injected(pod: Json, settings: Injection = SETTINGS) -> Json:
    """The pod after one round; asserts that the input is left alone."""
    before = copy.deepcopy(pod)
    operations = operations_for(pod, settings)
    assert pod == before
    patched: Json = jsonpatch.apply_patch(pod, operations)
    return patched


def sidecar_of(pod: Json) -> Json:
    """The one sidecar in a pod."""
    found: list[Json] = [
        container
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
        if container["name"] == names.SIDECAR_CONTAINER
    ]
    assert len(found) == 1
    return found[0]


def env_of(container: Json) -> dict[str, Any]:
    """Environment of a container; every name occurs once."""
    env = {item["name"]: item.get("value", item.get("valueFrom")) for item in container.get("env", [])}
    assert len(env) == len(container.get("env", []))
    return env


@dataclass(frozen=True)
class Webhook:
    """A running `python -m webhook`."""

    process: LocalProcess
    port: int
    health_port: int
    certificates: Path
    authority: Authority
    health_host: str = "127.0.0.1"

    def connect(self, timeout: float = 10.0) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=timeout)

    def post(
        self, body: bytes | Json, content_type: str | None = "application/json", path: str = "/mutate?timeout=5s"
    ) -> tuple[int, str]:
        """One request on a connection of its own: status and text."""
        connection = self.connect()
        try:
            headers = {"Content-Type": content_type} if content_type is not None else {}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, data, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def admit(self, review: Json) -> Json:
        """The `response` of an answered review."""
        status, text = self.post(review)
        assert status == 200, text
        answer = json.loads(text)
        assert answer["apiVersion"] == "admission.k8s.io/v1"
        assert answer["kind"] == "AdmissionReview"
        response: Json = answer["response"]
        return response

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of the health port; (0, "") when nothing listens."""
        try:
            with urllib.request.urlopen(f"http://{self.health_host}:{self.health_port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200


def patch_of(response: Json) -> list[Json]:
    """The JSON Patch in a response."""
    assert response["patchType"] == "JSONPatch"
    patch: list[Json] = json.loads(base64.b64decode(response["patch"]))
    return patch


def install_certificate(authority: Authority, folder: Path, name: str) -> None:
    """Put a new certificate in place as kubelet does: a new folder, then one rename of a symbolic link."""
    version = folder / f"..{name}"
    version.mkdir(parents=True)
    certificate, key = authority.issue(name, ["127.0.0.1", "network-webhook.network.svc"])
    (version / "tls.crt").write_bytes(certificate.read_bytes())
    (version / "tls.key").write_bytes(key.read_bytes())
    link = folder / "..data_tmp"
    link.symlink_to(version.name)
    link.rename(folder / "..data")
    for file in ("tls.crt", "tls.key"):
        if not (folder / file).is_symlink():
            (folder / file).symlink_to(f"..data/{file}")


StartWebhook = Callable[..., Webhook]


class _Processes:
    """Starts webhooks and remembers them."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority
        self._started: list[LocalProcess] = []

    def start(self, *, certificate: bool = True, wait: bool = True, **environment: str) -> Webhook:
        """Start one more; `environment` replaces or adds variables. Returns when it is healthy, or ready."""
        folder = self._folder / "certificates"
        folder.mkdir(exist_ok=True)
        if certificate:
            install_certificate(self._authority, folder, f"{self._folder.name}-{len(self._started)}")
        port, health_port = free_port(), free_port()
        process = LocalProcess.start(
            "webhook",
            [sys.executable, "-m", "webhook"],
            log=self._folder / f"webhook-{len(self._started)}.log",
            env={
                "PATH": os.environ["PATH"],
                "EDGEFARM_SIDECAR_IMAGE": SETTINGS.image,
                "EDGEFARM_VAULT_ADDR": SETTINGS.vault.address,
                "EDGEFARM_NATS_URL": SETTINGS.nats_url,
                "EDGEFARM_CA_FILE": str(self._authority.certificate),
                "EDGEFARM_WEBHOOK_HOST": "127.0.0.1",
                "EDGEFARM_WEBHOOK_PORT": str(port),
                "EDGEFARM_WEBHOOK_HEALTH_PORT": str(health_port),
                "EDGEFARM_WEBHOOK_CERT_DIR": str(folder),
                "EDGEFARM_WEBHOOK_DRAIN": "0s",
            }
            | environment,
        )
        self._started.append(process)
        webhook = Webhook(process, port, health_port, folder, self._authority)
        if wait:
            process.wait_until(lambda: webhook.get("/healthz")[0] == 200, "healthy")
        if wait and certificate:
            process.wait_until(webhook.is_ready, "ready")
        return webhook

    def stop(self) -> None:
        for process in self._started:
            process.stop()


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server: the local one, or a real one where KUBEBUILDER_ASSETS is set."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    server = start_api_server(tmp_path_factory.mktemp("kubernetes"), Path(assets) if assets else None)
    yield server
    server.stop()


@pytest.fixture
def start_webhook(tmp_path: Path, authority: Authority) -> Iterator[StartWebhook]:
    """Start webhook processes; they are stopped at the end of the test."""
    processes = _Processes(tmp_path, authority)
    yield processes.start
    processes.stop()


@pytest.fixture(scope="module")
def webhook(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Webhook]:
    """A ready webhook that the tests of a module share."""
    processes = _Processes(tmp_path_factory.mktemp("webhook"), authority)
    yield processes.start()
    processes.stop()
