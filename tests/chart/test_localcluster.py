"""What localcluster applies of the chart where Helm does not install it."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.chart import Values, merged, objects, own_values, selector
from tests.chart.rendering import environment, one, pods


def test_definitions_are_applied_before_everything_and_deployments_after_it() -> None:
    kinds = [obj["kind"] for obj in objects(own_values(Path("/bin/daprd"), {}))]
    assert kinds[:5] == ["CustomResourceDefinition"] * 5
    assert kinds[-2:] == ["Deployment"] * 2
    assert "ConfigMap" in kinds[5:-2]


def test_one_reconciler_with_a_short_lease_and_a_webhook_that_names_the_daprd() -> None:
    found = objects(own_values(Path("/bin/daprd"), {"controller": {"workers": 3}}))
    [reconciler] = pods(found)["network-controller"]["spec"]["containers"]
    [webhook] = pods(found)["network-webhook"]["spec"]["containers"]
    assert one(found, "Deployment", "network-controller")["spec"]["replicas"] == 1
    assert environment(reconciler).items() >= {("EDGEFARM_LEASE_DURATION", "5s"), ("EDGEFARM_WORKERS", "3")}
    assert environment(webhook)["EDGEFARM_SIDECAR_EXTRA_ENV"] == '{"EDGEFARM_DAPRD":"/bin/daprd"}'


@pytest.mark.parametrize("component", ["controller", "webhook"])
def test_the_pods_of_a_component_are_selected(component: str) -> None:
    labels = pods(objects(own_values(Path("/bin/daprd"), {})))[f"network-{component}"]["metadata"]["labels"]
    assert dict(term.split("=") for term in selector(component).split(",")) == labels


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, {"a": {"b": 1, "c": [1]}}),
        ({"a": {"b": 2}}, {"a": {"b": 2, "c": [1]}}),
        ({"a": {"c": [2]}, "d": 3}, {"a": {"b": 1, "c": [2]}, "d": 3}),
        ({"a": None}, {"a": None}),
    ],
)
def test_values_are_merged_as_helm_merges_them(others: Values, expected: Values) -> None:
    values: Values = {"a": {"b": 1, "c": [1]}}
    assert merged(values, others) == expected
    assert values == {"a": {"b": 1, "c": [1]}}
