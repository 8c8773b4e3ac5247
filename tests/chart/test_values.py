"""values.yaml, its schema and the README: one source, no unknown keys, and every mistake is named."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import helm_python
import pytest
import yaml

from localcluster.chart import CHART
from tests.chart.rendering import ROOT, Json, render

DEFAULTS: Json = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    """The script that makes schema and README."""
    spec = importlib.util.spec_from_file_location("write_values", ROOT / "charts" / "write_values.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def at(path: str, value: Any) -> Json:
    """Values that hold only this one."""
    for key in reversed(path.split(".")):
        value = {key: value}
    found: Json = value
    return found


def test_schema_and_readme_are_fresh(writer: ModuleType) -> None:
    assert writer.stale() == [], "run python charts/write_values.py"


def test_the_schema_has_the_keys_and_defaults_of_the_values(writer: ModuleType) -> None:
    def compare(schema: Json, defaults: Json) -> None:
        assert schema["additionalProperties"] is False
        assert set(schema["properties"]) - {"global"} == set(defaults)
        for key, default in defaults.items():
            below = schema["properties"][key]
            assert below["description"].endswith(".")
            if "properties" in below:
                compare(below, default)
            else:
                assert below["default"] == default

    compare(writer.schema(writer.read((CHART / "values.yaml").read_text()), {}), DEFAULTS)


def test_the_defaults_are_valid() -> None:
    render()
    render(DEFAULTS)


def test_a_value_without_a_comment_is_an_error(writer: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"image\.tag has no comment"):
        writer.read("# Images.\nimage:\n  # Registry.\n  registry: a\n  tag: b\n")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("controler", {}),
        ("controller.replica", 3),
        ("controller.image.name", "x"),
        ("controller.replicas", 0),
        ("controller.replicas", "two"),
        ("controller.logLevel", "loud"),
        ("controller.resources", {"cpu": "1"}),
        ("controller.tolerations", [{"keys": "a"}]),
        ("controller.extraEnv", [{"value": "a"}]),
        ("controller.image.digest", "sha256:1"),
        ("image.pullPolicy", "Sometimes"),
        ("imagePullSecrets", ["registry"]),
        ("vault.replicas", 2),
        ("vault.address", "http://vault.example"),
        ("vault.caBundle", "/etc/ca.crt"),
        ("vault.storage.size", "big"),
        ("vault.storage.class", "fast"),
        ("vault.whenUninstalled", "Keep"),
        ("vault.service.type", "ExternalName"),
        ("nats.replicas", 5),
        ("nats.urls", ["nats.example:4222"]),
        ("nats.urls", "tls://nats.example:4222"),
        ("nats.leafUrls", ["tls://user:secret@nats.example"]),
        ("credentials.renewEvery", "1 hour"),
        ("keys.overlap", 31),
        ("streams.driver", "jetstream"),
        ("streams.replicas", 7),
        ("mesh.mtu", 100),
        ("mesh.direct.maxPeers", -1),
        ("webhook.failurePolicy", "Warn"),
        ("webhook.timeoutSeconds", 60),
        ("webhook.url", "https://webhook.example/inject"),
        ("webhook.certManager.issuerRef", {"kind": "ClusterIssuer"}),
        ("agent.abbotExec", []),
        ("monitoring.podMonitors.interval", "often"),
        ("networkPolicies.apiServerPorts", [0]),
    ],
)
def test_a_wrong_value_is_refused_and_named(path: str, value: Any) -> None:
    with pytest.raises(helm_python.HelmValuesError) as refused:
        render(at(path, value))
    *above, last = path.split(".")
    assert "/".join(above) in str(refused.value)
    assert last in str(refused.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (at("vault.deploy", False), "vault.address is required"),
        (at("vault.address", "https://vault.example"), "vault.address does not go with vault.deploy: true"),
        (at("nats.deploy", False), "nats.urls are required"),
        (at("nats.urls", ["tls://nats.example"]), "nats.urls do not go with nats.deploy: true"),
        (at("agent.enabled", True), "agent.enabled needs a mesh"),
        (at("gateway.enabled", True), "gateway.enabled needs a mesh"),
    ],
)
def test_values_that_do_not_go_together_are_refused_with_a_sentence(values: Json, sentence: str) -> None:
    with pytest.raises(helm_python.HelmRenderError, match=sentence):
        render(values)
