"""The node runner's and the controllers' plain functions, without any cluster."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from localcluster.client import Json
from localcluster.node.container import ContainerView
from localcluster.node.images import UnknownImage, entrypoint, resolve_program
from localcluster.node.rewrite import Rewriter, expand
from localcluster.node.sources import PodFacts
from localcluster.node.status import PodView, pod_status
from localcluster.node.volumes import write_payload
from localcluster.workloads.daemonset import to_replace
from localcluster.workloads.job import judge
from localcluster.workloads.placement import is_node_ready, misfit
from localcluster.workloads.rollout import Replicas, Strategy, plan

IP = "127.9.8.7"


@pytest.mark.parametrize(
    ("text", "rewritten"),
    [
        ("/etc/app/a.yaml", "/real/app/a.yaml"),
        ("--config=/etc/app", "--config=/real/app"),
        ("file:///etc/app/a", "file:///real/app/a"),
        ("/etc/app/secret/key", "/real/secret/key"),
        ("/etc/application", "/etc/application"),
        ("/etc/app-2/x", "/etc/app-2/x"),
        ("/etc/app.d/x", "/etc/app.d/x"),
        ("/usr/etc/app", "/usr/etc/app"),
        ("see /etc/app.", "see /real/app."),
        ("http://127.0.0.1:3500", f"http://{IP}:3500"),
        ("tls://localhost:4222,tls://localhost", f"tls://{IP}:4222,tls://{IP}"),
        ("127.0.0.11", "127.0.0.11"),
        ("my-localhost.example localhost.localdomain", "my-localhost.example localhost.localdomain"),
        ("10.127.0.0.1", "10.127.0.0.1"),
        ("tls://leaf.network.svc:4222,http://leaf.network.svc", "tls://127.2.0.5:4222,http://127.2.0.5"),
        ("leaf.network.svc.cluster.local", "127.2.0.5"),
        (
            "leaf.network.svc.example leaf.network.svc.cluster.local.x",
            "leaf.network.svc.example leaf.network.svc.cluster.local.x",
        ),
        ("other.network.svc a.leaf.network.svc", "other.network.svc a.leaf.network.svc"),
    ],
)
def test_paths_localhost_and_services_are_rewritten_where_they_stand_for_themselves(text: str, rewritten: str) -> None:
    services = {("leaf", "network"): "127.2.0.5"}
    mounts = {"/etc/app": "/real/app", "/etc/app/secret/": "/real/secret"}
    rewriter = Rewriter(mounts, IP, lambda *name: services.get(name))
    assert rewriter(text) == rewritten


def test_variables_are_expanded_as_kubernetes_does() -> None:
    assert expand("$(A)-$(B)-$$(A)-$A-$", {"A": "1"}) == "1-$(B)-$(A)-$A-$"


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("python:3.12-slim", ["python"]),
        ("registry.example:5000/library/python@sha256:abc", ["python"]),
        ("ghcr.io/edgefarm/network-sidecar:1.0", ["python", "-m", "sidecar"]),
        ("quay.io/acme/python:1", ["acme"]),
    ],
)
def test_an_image_is_found_by_its_name_without_registry_and_tag(image: str, command: list[str]) -> None:
    images = {"python": ["python"], "acme/python": ["acme"], "edgefarm/network-sidecar": ["python", "-m", "sidecar"]}
    assert entrypoint(image, images) == command


def test_an_image_that_only_ends_like_a_known_one_is_unknown() -> None:
    with pytest.raises(UnknownImage, match="micropython"):
        entrypoint("micropython")


def test_python_is_the_interpreter_of_this_environment() -> None:
    assert resolve_program(["python3", "-V"]) == [sys.executable, "-V"]
    assert resolve_program(["/bin/sh"]) == ["/bin/sh"]


def test_a_payload_replaces_all_files_at_once_and_only_when_it_differs(tmp_path: Path) -> None:
    assert write_payload(tmp_path, {"a": (b"1", 0o644), "sub/b": (b"2", 0o400)})
    opened = tmp_path / "..data"
    before = opened.readlink()
    assert not write_payload(tmp_path, {"a": (b"1", 0o644), "sub/b": (b"2", 0o400)})
    assert opened.readlink() == before
    assert write_payload(tmp_path, {"sub/b": (b"3", 0o400)})
    assert (tmp_path / "sub" / "b").read_bytes() == b"3"
    assert not (tmp_path / "a").exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([opened.readlink().name, "..data", "sub"])


@pytest.mark.parametrize(
    ("strategy", "new", "old", "wanted"),
    [
        pytest.param(Strategy(3, 1, 0), (0, 0, 0), [(3, 3, 3)], (1, 3), id="one more than wanted may come"),
        pytest.param(Strategy(3, 1, 0), (1, 1, 0), [(3, 3, 3)], (1, 3), id="nobody goes before it is available"),
        pytest.param(Strategy(3, 1, 0), (1, 1, 1), [(3, 3, 3)], (1, 2), id="then one old goes"),
        pytest.param(Strategy(3, 0, 1), (0, 0, 0), [(3, 3, 3)], (0, 2), id="without surge one old goes first"),
        pytest.param(Strategy(2, 1, 0), (1, 1, 1), [(1, 1, 1), (1, 1, 0)], (1, 1, 0), id="broken old pods go first"),
        pytest.param(Strategy(1, 1, 0), (3, 3, 3), [], (1,), id="scaled down"),
        pytest.param(Strategy(2, 0, 2, recreate=True), (0, 0, 0), [(2, 2, 2)], (0, 0), id="recreate empties first"),
        pytest.param(Strategy(2, 0, 2, recreate=True), (0, 0, 0), [(0, 0, 0)], (2, 0), id="and then fills"),
    ],
)
def test_a_rollout_keeps_enough_pods_available(
    strategy: Strategy, new: tuple[int, int, int], old: list[tuple[int, int, int]], wanted: tuple[int, ...]
) -> None:
    sets = [Replicas(f"old-{index}", *numbers) for index, numbers in enumerate(old)]
    planned = plan(strategy, Replicas("new", *new), sets)
    assert tuple(planned[name] for name in ("new", *(entry.name for entry in sets))) == wanted


def test_percentages_round_as_kubernetes_rounds_them() -> None:
    assert Strategy.of({"replicas": 3}) == Strategy(3, 1, 0)
    rolling = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}
    assert Strategy.of({"replicas": 3, "strategy": rolling}) == Strategy(3, 0, 1)  # never both zero


def _node(labels: dict[str, str] | None = None, **spec: object) -> Json:
    return {"metadata": {"name": "node-1", "labels": labels or {}}, "spec": spec}


def test_a_node_must_match_selector_affinity_and_taints() -> None:
    assert not misfit({}, _node())
    assert misfit({"nodeSelector": {"edge": "true"}}, _node())
    assert not misfit({"nodeSelector": {"edge": "true"}}, _node({"edge": "true"}))
    tainted = _node(taints=[{"key": "edge", "value": "yes", "effect": "NoSchedule"}])
    assert "untolerated taint" in misfit({}, tainted)
    assert not misfit({"tolerations": [{"key": "edge", "value": "yes", "effect": "NoSchedule"}]}, tainted)
    assert not misfit({"tolerations": [{"operator": "Exists"}]}, tainted)
    assert misfit({}, _node(unschedulable=True))
    expression = {"key": "zone", "operator": "NotIn", "values": ["north"]}
    term = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}}
    assert misfit(affinity, _node({"zone": "north"}))
    assert not misfit(affinity, _node({"zone": "south"}))


def test_a_node_that_has_been_silent_for_long_is_not_ready() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
    node = {"status": {"conditions": [ready]}}
    assert is_node_ready(node, now + timedelta(seconds=20))
    assert not is_node_ready(node, now + timedelta(seconds=60))


def test_a_job_is_judged_by_its_pods() -> None:
    spec = {"completions": 2, "backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never"}}}
    succeeded, failed = ({"metadata": {}, "status": {"phase": phase}} for phase in ("Succeeded", "Failed"))
    assert judge(spec, [succeeded, failed]) is None
    complete = judge(spec, [succeeded, succeeded])
    assert complete is not None
    assert complete.type == "Complete"
    over = judge(spec, [failed, failed])
    assert over is not None
    assert over.reason == "BackoffLimitExceeded"


def _pod_view(main: ContainerView, *, initialized: bool = True, outcome: str = "") -> PodView:
    return PodView(PodFacts("node-1", IP, "127.9.8.1"), "2026-01-01T00:00:00Z", [], [main], initialized, outcome)


def test_a_pod_is_running_once_its_containers_began_and_ready_when_they_are() -> None:
    pod: Json = {"spec": {"containers": [{"name": "main"}]}}
    began = ContainerView("main", "python")
    assert pod_status(pod, _pod_view(began), "t1")["phase"] == "Pending"
    running = ContainerView("main", "python", state={"running": {}}, started=True, ready=True)
    status = pod_status(pod, _pod_view(running), "t1")
    assert status["phase"] == "Running"
    assert {entry["type"]: entry["status"] for entry in status["conditions"]} == {
        "PodScheduled": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }
    again = pod_status({**pod, "status": status}, _pod_view(running), "t2")
    assert again == status  # the time of a transition stays


def test_conditions_of_others_stay_and_open_readiness_gates_keep_a_pod_unready() -> None:
    foreign = {"type": "example.com/gate", "status": "False", "lastTransitionTime": "t0"}
    pod: Json = {
        "spec": {"containers": [{"name": "main"}], "readinessGates": [{"conditionType": "example.com/gate"}]},
        "status": {"conditions": [foreign]},
    }
    running = ContainerView("main", "python", state={"running": {}}, started=True, ready=True)
    conditions = {entry["type"]: entry for entry in pod_status(pod, _pod_view(running), "t1")["conditions"]}
    assert conditions["example.com/gate"] == foreign
    assert conditions["ContainersReady"]["status"] == "True"
    assert conditions["Ready"]["reason"] == "ReadinessGatesNotReady"


@pytest.mark.parametrize(
    ("limit", "pods", "replaced"),
    [
        (1, "OOOO", 1),
        ("50%", "OOOO", 2),
        ("30%", "OOOO", 2),
        ("100%", "OOOO", 4),
        ("50%", "NnOO", 1),
        (1, "NnOO", 0),
        (1, "NoOO", 1),
        (0, "NNOO", 1),
        (2, "NNNN", 0),
    ],
)
def test_a_daemon_set_replaces_as_many_ready_pods_as_may_be_away(limit: object, pods: str, replaced: int) -> None:
    """O: an outdated pod, N: a new one; small letters are not ready."""
    spec = {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": limit}}}
    made = [_daemon(letter) for letter in pods]
    assert len(to_replace(spec, len(pods), made, "n")) == replaced
    assert to_replace({"updateStrategy": {"type": "OnDelete"}}, len(pods), made, "n") == []


def _daemon(letter: str) -> Json:
    labels = {"controller-revision-hash": letter.lower()}
    conditions = [{"type": "Ready", "status": str(letter.isupper())}]
    return {"metadata": {"labels": labels}, "status": {"phase": "Running", "conditions": conditions}}
