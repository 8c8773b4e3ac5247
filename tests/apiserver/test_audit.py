"""The audit log: what it says about each answer, on localcluster and on a real API server alike."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localcluster.kubernetes import ApiServer, GivenApiServer, start_api_server
from tests.apiserver.rest import Json, Rest


class Log:
    """Reads the events of one audit log."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, matches: Callable[[Json], bool]) -> Json:
        """The first such event, awaited for ten seconds: a real server writes in the background."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            lines = self._path.read_text().splitlines() if self._path.exists() else []
            for line in lines:
                if matches(event := json.loads(line)):
                    return dict(event)
            time.sleep(0.05)
        raise AssertionError("there is no such audit event")

    def about(self, name: str, verb: str, stage: str = "ResponseComplete") -> Json:
        def matches(event: Json) -> bool:
            reference = event.get("objectRef") or {}
            return reference.get("name") == name and (event["verb"], event["stage"]) == (verb, stage)

        return self.find(matches)


@pytest.fixture(scope="module")
def log_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, assets: Path | None, log_path: Path) -> Iterator[ApiServer]:
    running = start_api_server(tmp_path_factory.mktemp("audited"), assets, audit_log=log_path)
    if isinstance(running, GivenApiServer):
        pytest.skip("needs an API server of its own")
    yield running
    running.stop()


@pytest.fixture(scope="module")
def admin(audited: ApiServer) -> Rest:
    return Rest(audited.url, audited.ca, audited.admin_token)


@pytest.fixture(scope="module")
def log(log_path: Path) -> Log:
    return Log(log_path)


def test_an_event_tells_who_did_what_and_why_it_was_allowed(admin: Rest, log: Log) -> None:
    admin.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "seen"}, "data": {"secret": "s3cret"}})
    event = log.about("seen", "create")
    assert (event["kind"], event["apiVersion"], event["level"]) == ("Event", "audit.k8s.io/v1", "Metadata")
    assert event["user"]["username"] == "admin"
    assert event["requestURI"] == "/api/v1/namespaces/default/configmaps"
    expected = {"resource": "configmaps", "namespace": "default", "name": "seen", "apiVersion": "v1"}
    assert event["objectRef"].items() >= expected.items()
    assert event["responseStatus"]["code"] == 201
    assert event["annotations"] == {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""}
    assert "s3cret" not in json.dumps(event)


def test_a_refusal_is_recorded_with_its_sentence(admin: Rest, log: Log) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts"
    admin.create(account, {"metadata": {"name": "curious"}})
    token = admin.create(f"{account}/curious/token", {"spec": {}})["status"]["token"]
    admin.as_token(token).get("/apis/apps/v1/namespaces/default/deployments/hidden/scale")
    event = log.about("hidden", "get")
    assert event["user"]["username"] == "system:serviceaccount:default:curious"
    assert event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert event["objectRef"]["subresource"] == "scale"
    assert event["objectRef"]["apiGroup"] == "apps"
    assert event["responseStatus"]["reason"] == "Forbidden"
    assert 'cannot get resource "deployments/scale"' in event["responseStatus"]["message"]


def test_a_right_is_recorded_with_the_binding_that_gave_it(admin: Rest, log: Log) -> None:
    account = "/api/v1/namespaces/default/serviceaccounts"
    admin.create(account, {"metadata": {"name": "reader"}})
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["services"], "verbs": ["get"]}
    admin.create(f"{roles}/roles", {"metadata": {"name": "reader"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": "default"}
    reference = {"kind": "Role", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
    admin.create(f"{roles}/rolebindings", {"metadata": {"name": "reader"}, "roleRef": reference, "subjects": [subject]})
    token = admin.create(f"{account}/reader/token", {"spec": {}})["status"]["token"]
    admin.as_token(token).get("/api/v1/namespaces/default/services/absent")
    event = log.about("absent", "get")
    reason = 'RBAC: allowed by RoleBinding "reader/default" of Role "reader" to ServiceAccount "reader/default"'
    assert event["annotations"]["authorization.k8s.io/reason"] == reason
    assert event["responseStatus"]["code"] == 404


def test_a_watch_is_recorded_when_it_begins(admin: Rest, log: Log) -> None:
    path = "/api/v1/namespaces/default/configmaps?fieldSelector=metadata.name%3Dwatched"
    with admin.watch(path):
        assert log.about("watched", "watch", "ResponseStarted")["responseStatus"]["code"] == 200
    assert log.about("watched", "watch")["annotations"]["authorization.k8s.io/decision"] == "allow"


def test_paths_that_are_no_resources_are_recorded_too(admin: Rest, log: Log) -> None:
    admin.get("/version")
    event = log.find(lambda event: event["requestURI"] == "/version" and event["stage"] == "ResponseComplete")
    assert event["verb"] == "get"
    assert "objectRef" not in event
    assert admin.get("/version").headers["Audit-Id"] != event["auditID"]
