"""An installation as its objects show it, which tests change at will, because nobody mends it; the webhook is real."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from edgefarm import names, pki
from edgefarm.api.crd import definitions
from edgefarm.findings import Finding
from localcluster.kubeconfig import write_kubeconfig
from tests.apiserver.rest import Json, Rest

FACTORY: Final = "factory"
NET: Final = "plant"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
REGISTRATIONS: Final = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_CORE: Final = f"/api/v1/namespaces/{names.CONTROLLER_NAMESPACE}"
CONFIGMAP: Final = f"{_CORE}/configmaps/{names.CONFIGMAP}"
SECRET: Final = f"{_CORE}/secrets/{names.WEBHOOK_SECRET}"
LEADER: Final = f"{_CORE}/pods/network-controller-0"
DEPLOYMENTS: Final = f"/apis/apps/v1/namespaces/{names.CONTROLLER_NAMESPACE}/deployments"
LEASE: Final = f"/apis/coordination.k8s.io/v1/namespaces/{names.CONTROLLER_NAMESPACE}/leases/{names.ELECTION_LEASE}"
REGISTRATION: Final = f"{REGISTRATIONS}/{names.WEBHOOK_CONFIGURATION}"
NETWORKS: Final = f"/apis/{names.API_VERSION}/namespaces/{names.CONTROLLER_NAMESPACE}/networks"
POLICIES: Final = f"/apis/{names.API_VERSION}/namespaces/{FACTORY}/policies"
PODS: Final = f"/api/v1/namespaces/{FACTORY}/pods"
_CONFIGURATION: Final = {
    "vault": {"address": "https://vault.example:8200"},
    "nats": {"urls": ["tls://nats.example:4222"]},
}
#: What the API server fills in; an object is made again without it.
_OF_SERVER: Final = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields")


class Pages(http.server.ThreadingHTTPServer):
    """Answers for the leader and for sidecars: path to status and text."""

    def __init__(self, host: str) -> None:
        super().__init__((host, 0), _Handler)
        self.pages: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []

    def tell(self, *findings: Finding) -> None:
        """Have the leader find this."""
        document = {"findings": [finding.document() for finding in findings]}
        self.pages["/diagnostics"] = (200, json.dumps(document))


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Pages)
        server.asked.append(self.path)
        status, text = server.pages.get(self.path.partition("?")[0], (404, "nothing here\n"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: Any) -> None:
        """Quietly."""


@contextlib.contextmanager
def serving(host: str) -> Iterator[Pages]:
    """Pages that are served until the context ends."""
    with Pages(host) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@dataclass
class Ward:
    """The API server, the objects of an installation in it, and who answers for its pods."""

    rest: Rest
    kubeconfig: Path
    pages: Pages
    authority: pki.KeyPair
    webhook_port: int
    folder: Path
    kubeconfigs: dict[str, Path] = field(default_factory=dict)

    def install(self) -> None:
        """Make all objects."""
        for name in (names.CONTROLLER_NAMESPACE, FACTORY):
            self.rest.create("/api/v1/namespaces", {"metadata": {"name": name}})
            self.rest.create(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        for definition in definitions().values():
            self.rest.create(CRDS, definition)
        self._make(CONFIGMAP, {"data": {"config.yaml": yaml.safe_dump(_CONFIGURATION)}})
        self.serve_certificate()
        for name in ("network-controller", "network-webhook"):
            self._deployment(name)
        self._leader()
        webhooks = [self._webhook()]
        self._make(REGISTRATION, {"webhooks": webhooks})
        self._wait_until(lambda: self.rest.get(NETWORKS).status == 200, "Networks are served")
        self._make(f"{NETWORKS}/{NET}", {"spec": {"namespaces": [FACTORY]}}, kind="Network")
        self._status(f"{NETWORKS}/{NET}", {"conditions": [_ready()]})

    def serve_certificate(self, ends_in: timedelta = timedelta(days=60)) -> Json:
        """The Secret with the certificate, made so long ago that it ends then."""
        made = datetime.now(UTC) + ends_in - timedelta(days=90)
        pair = pki.issue(self.authority, ["127.0.0.1"], now=made, lifetime=timedelta(days=90))
        data = {"tls.crt": _encoded(pair.certificate), "tls.key": _encoded(pair.private_key)}
        body: Json = {"type": "kubernetes.io/tls", "data": data}
        if self.rest.get(SECRET).status == 404:
            self._make(SECRET, body)
        return body

    @contextlib.contextmanager
    def changed(self, path: str, patch: Json, *, status: bool = False) -> Iterator[None]:
        """An object that is patched for a while."""
        before = self.rest.read(path)
        answer = self.rest.patch(f"{path}/status" if status else path, patch)
        assert answer.status == 200, answer
        try:
            yield
        finally:
            before["metadata"]["resourceVersion"] = self.rest.read(path)["metadata"]["resourceVersion"]
            answer = self.rest.put(path, before)
            assert answer.status == 200, answer
            if status:
                self._status(path, before["status"])

    @contextlib.contextmanager
    def without(self, path: str) -> Iterator[None]:
        """An object that is gone for a while."""
        before = self.rest.read(path)
        assert self.rest.delete(path).status == 200
        try:
            yield
        finally:
            self._wait_until(lambda: self.rest.get(path).status == 404, f"{path} is gone")
            for member in _OF_SERVER:
                before["metadata"].pop(member, None)
            self.rest.create(path.rpartition("/")[0], before)
            if "status" in before:
                self._status(path, before["status"])

    @contextlib.contextmanager
    def pod(self, name: str, *, labelled: bool = True, sidecar: Json | None = None) -> Iterator[None]:
        """A pod as the webhook lets it be created; `sidecar` is the state of its container."""
        labels = {names.LABEL_NETWORK: NET} if labelled else {}
        annotations = {names.ANNOTATION_PORT: str(self.pages.server_address[1])}
        spec = {"containers": [{"name": "app", "image": "example/app:1"}]}
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        self.rest.create(PODS, {"metadata": metadata, "spec": spec})
        statuses = [{"name": names.SIDECAR_CONTAINER, "image": "registry/sidecar:1", **(sidecar or {})}]
        self._status(
            f"{PODS}/{name}",
            {"podIP": self.pages.server_address[0], "phase": "Pending", "initContainerStatuses": statuses},
        )
        try:
            yield
        finally:
            assert self.rest.delete(f"{PODS}/{name}?gracePeriodSeconds=0").status in (200, 202)

    @contextlib.contextmanager
    def policy(self, name: str, *, reason: str) -> Iterator[None]:
        """A Policy that is not in effect."""
        path = f"{POLICIES}/{name}"
        self._make(path, {"spec": {"network": "nowhere", "allowpub": ["a"]}}, kind="Policy")
        self._status(path, {"conditions": [{**_ready(), "status": "False", "reason": reason}]})
        try:
            yield
        finally:
            assert self.rest.delete(path).status in (200, 202)

    def as_reader(self) -> Path:
        """The kubeconfig of somebody who may see and try everything, but may not ask pods."""
        path = self.folder / "reader.kubeconfig"
        if path.exists():
            return path
        account = {"metadata": {"name": "reader"}}
        self.rest.create(f"{_CORE}/serviceaccounts", account)
        groups = (
            "",
            "apps",
            "coordination.k8s.io",
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            names.GROUP,
        )
        resources = ["pods", "configmaps", "secrets", "events", "deployments", "leases", "networks"]
        resources += ["policies", "edgenetworks", "streams"]
        resources += ["mutatingwebhookconfigurations", "customresourcedefinitions"]
        rule = {
            "apiGroups": ["", "apps", names.GROUP, *groups],
            "resources": resources,
            "verbs": ["get", "list", "create"],
        }
        rbac = "/apis/rbac.authorization.k8s.io/v1"
        self.rest.create(f"{rbac}/clusterroles", {**account, "rules": [rule]})
        subject = {"kind": "ServiceAccount", "name": "reader", "namespace": names.CONTROLLER_NAMESPACE}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}
        self.rest.create(f"{rbac}/clusterrolebindings", {**account, "roleRef": role, "subjects": [subject]})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self.rest.create(f"{_CORE}/serviceaccounts/reader/token", request)["status"]["token"]
        write_kubeconfig(path, self.rest.url, self.rest.ca, token)
        return path

    def _webhook(self) -> Json:
        excluded = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [names.CONTROLLER_NAMESPACE]}
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        return {
            "name": "inject.network.edgefarm.io",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "url": f"https://127.0.0.1:{self.webhook_port}/mutate",
                "caBundle": _encoded(self.authority.certificate),
            },
            "failurePolicy": "Fail",
            "namespaceSelector": {"matchExpressions": [excluded]},
            "objectSelector": {"matchExpressions": [{"key": names.LABEL_NETWORK, "operator": "Exists"}]},
            "rules": [rule],
            "sideEffects": "None",
            "timeoutSeconds": 5,
        }

    def _deployment(self, name: str) -> None:
        labels = {"app": name}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "example:1"}]}}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
        self._make(f"{DEPLOYMENTS}/{name}", {"spec": spec})
        self._status(f"{DEPLOYMENTS}/{name}", {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2})

    def _leader(self) -> None:
        port = {"name": "EDGEFARM_HEALTH_PORT", "value": str(self.pages.server_address[1])}
        container = {"name": "reconciler", "image": "example:1", "env": [port]}
        self._make(LEADER, {"spec": {"containers": [container]}})
        self._status(LEADER, {"podIP": self.pages.server_address[0], "phase": "Running"})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": "network-controller-0_1234", "leaseDurationSeconds": 3600, "renewTime": now}
        self._make(LEASE, {"spec": spec})

    def _make(self, path: str, body: Json, kind: str = "") -> None:
        collection, _, name = path.rpartition("/")
        typed = {"apiVersion": names.API_VERSION, "kind": kind} if kind else {}
        self.rest.create(collection, {**typed, "metadata": {"name": name}, **body})

    def _wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """A definition goes after its objects, and is served some time after it was made."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline, f"in vain waited until {what}"

    def _status(self, path: str, status: Json) -> None:
        answer = self.rest.patch(f"{path}/status", {"status": status})
        assert answer.status == 200, answer


def _ready() -> Json:
    return {
        "type": "Ready",
        "status": "True",
        "reason": "Reconciled",
        "message": "account and grants are in place",
        "lastTransitionTime": "2026-03-01T12:00:00Z",
    }


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
