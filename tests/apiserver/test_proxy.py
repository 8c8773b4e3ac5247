"""The proxy subresources: a program behind a pod's address, asked through the API server."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.rest import Json, Rest, pod

pytestmark = pytest.mark.usefixtures("local_only")  # a kube-apiserver refuses to speak to loopback addresses


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = {"method": self.command, "path": self.path, "headers": headers, "body": content}
        text = json.dumps(asked).encode()
        self.send_response(418 if "teapot" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Seen", "yes")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_arguments: Any) -> None:
        """Quietly."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the program listens, at 127.0.0.1."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


@pytest.fixture
def pods(rest: Rest, namespace: str, port: int) -> str:
    """The path of the namespace's pods, of which `web` has an address and declares the port."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    containers = [{"name": "main", "image": "example/app:1", "ports": [{"containerPort": port}]}]
    rest.create(path, pod("web", containers=containers))
    assert rest.patch(f"{path}/web/status", {"status": {"podIP": "127.0.0.1"}}).status == 200
    return path


def test_a_pod_is_asked_at_the_port_that_it_declares(rest: Rest, pods: str) -> None:
    answer = rest.get(f"{pods}/web/proxy/a%2Fb/c?d=e&f=%20g")
    assert answer.status == 200
    assert answer.headers["X-Seen"] == "yes"
    assert (answer.body["method"], answer.body["path"]) == ("GET", "/a%2Fb/c?d=e&f=%20g")


def test_the_callers_token_stays_with_the_api_server(rest: Rest, pods: str) -> None:
    assert "authorization" not in rest.get(f"{pods}/web/proxy/").body["headers"]


def test_methods_bodies_and_answers_are_handed_on(rest: Rest, pods: str) -> None:
    answer = rest.post(f"{pods}/web/proxy/teapot", {"leaves": 2})
    assert answer.status == 418
    assert (answer.body["method"], json.loads(answer.body["body"])) == ("POST", {"leaves": 2})
    assert answer.body["headers"]["content-type"] == "application/json"


def test_the_port_may_be_named_in_the_path(rest: Rest, pods: str, port: int) -> None:
    assert rest.get(f"{pods}/web:{port}/proxy/x").body["path"] == "/x"
    assert rest.get(f"{pods}/http:web:{port}/proxy").body["path"] == "/"
    closed = rest.get(f"{pods}/web:1/proxy/")
    assert closed.status == 503
    assert closed.body["reason"] == "ServiceUnavailable"
    assert "error trying to reach service:" in closed.body["message"]
    assert rest.get(f"{pods}/ftp:web:{port}/proxy/").status == 400


def test_a_pod_without_an_address_or_none_at_all_cannot_be_asked(rest: Rest, pods: str) -> None:
    rest.create(pods, pod("new"))
    assert rest.get(f"{pods}/new/proxy/").status == 400
    assert rest.get(f"{pods}/absent/proxy/").status == 404


def test_a_service_is_asked_at_a_ready_endpoint(rest: Rest, namespace: str, pods: str, port: int) -> None:
    core = pods.removesuffix("/pods")
    spec = {"ports": [{"name": "http", "port": 80, "targetPort": port}, {"name": "admin", "port": 81}]}
    rest.create(f"{core}/services", {"metadata": {"name": "web"}, "spec": spec})
    without = rest.get(f"{core}/services/web:http/proxy/")
    assert without.status == 503
    assert without.body["message"] == 'no endpoints available for service "web"'
    subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "http", "port": port}]}
    rest.create(f"{core}/endpoints", {"metadata": {"name": "web"}, "subsets": [subset]})
    for name in ("web:http", "web:80", "http:web:http"):
        assert rest.get(f"{core}/services/{name}/proxy/x").body["path"] == "/x"
    assert rest.get(f"{core}/services/web:82/proxy/x").status == 503


def test_asking_a_pod_is_a_right_of_its_own(rest: Rest, namespace: str, pods: str) -> None:
    core, group = pods.removesuffix("/pods"), f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    token = rest.create(f"{core}/serviceaccounts/default/token", {"spec": {}})["status"]["token"]
    caller = rest.as_token(token)

    def grant(name: str, *resources: str) -> None:
        rule: Json = {"apiGroups": [""], "resources": list(resources), "verbs": ["get"]}
        rest.create(f"{group}/roles", {"metadata": {"name": name}, "rules": [rule]})
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
        binding = {"roleRef": {"kind": "Role", "name": name}, "subjects": [subject], "metadata": {"name": name}}
        rest.create(f"{group}/rolebindings", binding)

    grant("pods", "pods")
    refused = caller.get(f"{pods}/web/proxy/x")
    assert refused.status == 403
    assert 'cannot get resource "pods/proxy" in API group ""' in refused.body["message"]
    grant("proxy", "pods/proxy")
    assert caller.get(f"{pods}/web/proxy/x").status == 200
    assert caller.post(f"{pods}/web/proxy/x", {}).status == 403
