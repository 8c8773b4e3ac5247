"""Kinds around pods: budgets, network policies, priorities, storage and the range of Services."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.apiserver.rest import Json, Rest, pod

CORE, POLICY = "/api/v1", "/apis/policy/v1"
NETWORKING = "/apis/networking.k8s.io/v1"
PRIORITIES = "/apis/scheduling.k8s.io/v1/priorityclasses"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def named(name: str, **fields: Any) -> Json:
    return {"metadata": {"name": name}, **fields}


def claim(**spec: Any) -> Json:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return named("data", spec=wanted | spec)


def message_of(rest: Rest, path: str, body: Json) -> str:
    answer = rest.post(path, body)
    assert answer.status == 422, answer
    return str(answer.body["message"])


def test_the_range_of_services_is_known(rest: Rest, namespace: str) -> None:
    spec = {"ports": [{"port": 80}]}
    service = rest.create(f"{CORE}/namespaces/{namespace}/services", named("web", spec=spec))
    cluster = rest.read(f"{NETWORKING}/servicecidrs/kubernetes")
    assert ip_address(service["spec"]["clusterIP"]) in ip_network(cluster["spec"]["cidrs"][0])


def test_a_budget_starts_without_observations(rest: Rest, namespace: str) -> None:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    made = rest.create(f"{POLICY}/namespaces/{namespace}/poddisruptionbudgets", named("web", spec=spec))
    assert made["status"]["disruptionsAllowed"] == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"minAvailable": 1, "maxUnavailable": 1}, "minAvailable and maxUnavailable cannot be both set"),
        ({"minAvailable": -1}, "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
        ({"maxUnavailable": "half"}, 'spec.maxUnavailable: Invalid value: "half": a valid percent string'),
    ],
)
def test_budgets_that_mean_nothing_are_refused(rest: Rest, namespace: str, spec: Json, message: str) -> None:
    assert message in message_of(rest, f"{POLICY}/namespaces/{namespace}/poddisruptionbudgets", named("web", spec=spec))


def test_the_direction_of_a_network_policy_follows_from_its_rules(rest: Rest, namespace: str) -> None:
    rule = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}
    path = f"{NETWORKING}/namespaces/{namespace}/networkpolicies"
    made = rest.create(path, named("out", spec={"podSelector": {}, "egress": [rule]}))
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert made["spec"]["egress"][0]["ports"] == [{"port": 443, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"from": [{}]}, "spec.ingress[0].from[0]: Required value: must specify a peer"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0"}}]}, "spec.ingress[0].from[0].ipBlock.cidr: Invalid value"),
        ({"ports": [{"port": 70000}]}, "spec.ingress[0].ports[0].port: Invalid value: 70000"),
        ({"ports": [{"port": 80, "endPort": 79}]}, "spec.ingress[0].ports[0].endPort: Invalid value: 79"),
    ],
)
def test_network_policies_with_impossible_rules_are_refused(
    rest: Rest, namespace: str, rule: Json, message: str
) -> None:
    body = named("in", spec={"podSelector": {}, "ingress": [rule]})
    assert message in message_of(rest, f"{NETWORKING}/namespaces/{namespace}/networkpolicies", body)


def test_a_pod_gets_the_number_of_its_priority_class(
    rest: Rest, namespace: str, fresh: Callable[[str], str], local_only: None
) -> None:
    name = fresh("priority")
    rest.create(PRIORITIES, named(name, value=1000))
    pods = f"{CORE}/namespaces/{namespace}/pods"
    assert rest.create(pods, pod("urgent", priorityClassName=name))["spec"]["priority"] == 1000
    assert rest.create(pods, pod("plain"))["spec"]["priority"] == 0
    refused = rest.post(pods, pod("lost", priorityClassName="absent"))
    assert refused.status == 403
    assert "no PriorityClass with name absent was found" in refused.body["message"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("system-mine", 1, "priority class names with 'system-' prefix are reserved"),
        ("huge", 2_000_000_000, "maximum allowed value of a user defined priority is 1000000000"),
    ],
)
def test_priorities_of_the_system_are_reserved(rest: Rest, name: str, value: int, message: str) -> None:
    assert message in message_of(rest, PRIORITIES, named(name, value=value))


def test_a_claim_without_a_class_gets_the_default_one(
    rest: Rest, namespace: str, fresh: Callable[[str], str], local_only: None
) -> None:
    claims, name = f"{CORE}/namespaces/{namespace}/persistentvolumeclaims", fresh("class")
    assert "storageClassName" not in rest.create(claims, claim())["spec"]
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class = {"metadata": {"name": name, "annotations": annotations}, "provisioner": "example.org/disk"}
    assert rest.create(CLASSES, storage_class)["reclaimPolicy"] == "Delete"
    try:
        second = claim() | {"metadata": {"name": "second"}}
        assert rest.create(claims, second)["spec"]["storageClassName"] == name
        third = claim(storageClassName="") | {"metadata": {"name": "third"}}
        assert rest.create(claims, third)["spec"]["storageClassName"] == ""
    finally:
        rest.delete(f"{CLASSES}/{name}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"accessModes": []}, "spec.accessModes: Required value"),
        ({"accessModes": ["Sometimes"]}, 'spec.accessModes: Unsupported value: "Sometimes"'),
        ({"resources": {}}, "spec.resources[storage]: Required value"),
    ],
)
def test_claims_that_nothing_can_meet_are_refused(rest: Rest, namespace: str, spec: Json, message: str) -> None:
    path = f"{CORE}/namespaces/{namespace}/persistentvolumeclaims"
    assert message in message_of(rest, path, claim(**spec))


def test_a_bound_claim_keeps_its_volume(rest: Rest, namespace: str) -> None:
    path = f"{CORE}/namespaces/{namespace}/persistentvolumeclaims"
    rest.create(path, claim())
    assert rest.patch(f"{path}/data", {"spec": {"volumeName": "one"}}).status == 200
    refused = rest.patch(f"{path}/data", {"spec": {"volumeName": "two"}})
    assert refused.status == 422
    assert "spec is immutable after creation" in refused.body["message"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"hostPath": {"path": "/d"}}, "spec.capacity: Required value"),
        ({"capacity": {"storage": "1Gi"}}, "must specify a volume type"),
        (
            {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/d"}, "nfs": {"server": "s", "path": "/"}},
            "may not specify more than 1 volume type",
        ),
    ],
)
def test_volumes_need_a_size_and_one_source(rest: Rest, fresh: Callable[[str], str], spec: Json, message: str) -> None:
    body = named(fresh("volume"), spec={"accessModes": ["ReadWriteOnce"], **spec})
    assert message in message_of(rest, f"{CORE}/persistentvolumes", body)


def test_a_storage_class_does_not_change(rest: Rest, fresh: Callable[[str], str]) -> None:
    name = fresh("class")
    rest.create(CLASSES, named(name, provisioner="example.org/disk"))
    refused = rest.patch(f"{CLASSES}/{name}", {"reclaimPolicy": "Retain"})
    assert refused.status in (403, 422), refused
    assert "reclaimPolicy" in refused.body["message"]
