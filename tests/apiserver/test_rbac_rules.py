"""Rules as Kubernetes reads them: what a request is, what a rule allows, and what it covers."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.apiserver.authorization.attributes import Attributes, attributes_of
from localcluster.apiserver.authorization.rules import EVERYTHING, Rule, uncovered


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/api/v1/pods", Attributes("list", group="", version="v1", resource="pods")),
        ("GET", "/api/v1/pods?watch=1", Attributes("watch", version="v1", resource="pods")),
        (
            "GET",
            "/api/v1/namespaces/a/pods/p/log",
            Attributes("get", version="v1", resource="pods", subresource="log", namespace="a", name="p"),
        ),
        (
            "GET",
            "/api/v1/namespaces/a",
            Attributes("get", version="v1", resource="namespaces", namespace="a", name="a"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            Attributes("update", version="v1", resource="namespaces", subresource="finalize", namespace="a", name="a"),
        ),
        (
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            Attributes("deletecollection", group="apps", version="v1", resource="deployments", namespace="a"),
        ),
        (
            "GET",
            "/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name=c&watch=true",
            Attributes("watch", version="v1", resource="configmaps", namespace="a", name="c"),
        ),
        (
            "POST",
            "/api/v1/namespaces/a/pods/http:p:80/proxy/metrics/x",
            Attributes("create", version="v1", resource="pods", subresource="proxy", namespace="a", name="http:p:80"),
        ),
        ("GET", "/apis/apps/v1", Attributes("get")),
        ("GET", "/metrics", Attributes("get")),
    ],
)
def test_requests_become_verbs_on_resources_or_paths(method: str, target: str, expected: Attributes) -> None:
    path, _, text = target.partition("?")
    query = dict(pair.split("=", 1) for pair in text.split("&") if pair)
    found = attributes_of(method, path, query)
    assert found == Attributes(
        found.verb,
        path,
        expected.group,
        expected.version,
        expected.resource,
        expected.subresource,
        expected.namespace,
        expected.name,
    )
    assert found.verb == expected.verb


def rule(verbs: str, resources: str = "", groups: str = "-", **more: Any) -> Rule:
    """Words are split at spaces; the group `-` is the core group."""
    named = [group.replace("-", "") for group in groups.split()]
    return Rule.parse({"verbs": verbs.split(), "resources": resources.split(), "apiGroups": named, **more})


def on(verb: str, resource: str, name: str = "", group: str = "") -> Attributes:
    plain, _, subresource = resource.partition("/")
    return Attributes(verb, "", group, "v1", plain, subresource, "ns", name)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (rule("get list", "pods"), on("list", "pods")),
        (rule("*", "*", "*"), on("escalate", "clusterroles", "x", "rbac.authorization.k8s.io")),
        (rule("get", "pods/log"), on("get", "pods/log", "p")),
        (rule("get", "*"), on("get", "pods/log", "p")),
        (rule("update", "*/scale", "apps"), on("update", "deployments/scale", "d", "apps")),
        (rule("get", "secrets", resourceNames=["a"]), on("get", "secrets", "a")),
        (Rule.parse({"verbs": ["get"], "nonResourceURLs": ["/openapi/*"]}), Attributes("get", "/openapi/v3")),
        (Rule.parse({"verbs": ["*"], "nonResourceURLs": ["*"]}), Attributes("post", "/anything")),
    ],
)
def test_a_rule_allows_what_it_names(held: Rule, wanted: Attributes) -> None:
    assert held.allows(wanted)


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (rule("get", "pods"), on("list", "pods")),
        (rule("get", "pods"), on("get", "pods/log", "p")),
        (rule("get", "pods/log"), on("get", "pods", "p")),
        (rule("get", "pods"), on("get", "pods", "p", "metrics.k8s.io")),
        (rule("get", "*/scale", "apps"), on("get", "deployments", "d", "apps")),
        (rule("get list", "secrets", resourceNames=["a"]), on("get", "secrets", "b")),
        (rule("list", "secrets", resourceNames=["a"]), on("list", "secrets")),
        (rule("get", "*", "*"), Attributes("get", "/metrics")),
        (Rule.parse({"verbs": ["get"], "nonResourceURLs": ["/openapi/*"]}), Attributes("get", "/openapi")),
    ],
)
def test_a_rule_allows_nothing_else(held: Rule, wanted: Attributes) -> None:
    assert not held.allows(wanted)


def test_what_is_spread_over_rules_is_covered_part_by_part() -> None:
    held = [rule("get list", "pods"), rule("get", "secrets", resourceNames=["a", "b"])]
    assert uncovered(held, [rule("get", "pods"), rule("list", "pods", resourceNames=["p"])]) == []
    assert uncovered(held, [rule("get", "secrets", resourceNames=["a"])]) == []
    assert uncovered(held, [rule("get", "secrets")]) == [rule("get", "secrets")]
    assert uncovered(held, [rule("get delete", "pods nodes")]) == [
        rule("delete", "nodes"),
        rule("get", "nodes"),
        rule("delete", "pods"),
    ]
    assert uncovered(held, [rule("*", "pods")]) == [rule("*", "pods")]
    assert uncovered(EVERYTHING, [rule("*", "*", "*"), Rule.parse({"verbs": ["get"], "nonResourceURLs": ["/x"]})]) == []


def test_rules_are_shown_as_kubernetes_shows_them() -> None:
    shown = '{APIGroups:["" "apps"], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "list"]}'
    assert rule("list get", "pods", "- apps", resourceNames=["a"]).compact() == shown
