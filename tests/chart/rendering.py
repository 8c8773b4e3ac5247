"""Renders the chart with Helm's own SDK, and owns the values files and snapshots.

`python -m tests.chart.rendering` writes the snapshots anew.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from localcluster import chart
from localcluster.chart import CHART

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
VALUES = Path(__file__).parent / "values"
SNAPSHOTS = Path(__file__).parent / "snapshots"
NAMES = tuple(sorted(path.stem for path in VALUES.glob("*.yaml")))
NAMESPACE = "network"
_CRDS = "templates/crds.yaml"


def values_of(name: str) -> Json:
    """The values of a file in values/."""
    values: Json = yaml.safe_load((VALUES / f"{name}.yaml").read_text())
    return values


def render(values: Json | None = None, namespace: str = NAMESPACE) -> dict[str, str]:
    """Rendered text by template, such as `templates/webhook-service.yaml`."""
    return dict(_rendered(json.dumps(values or {}), namespace))


@functools.cache
def _rendered(values: str, namespace: str) -> dict[str, str]:
    return chart.render(json.loads(values), namespace)


def objects(values: Json | None = None, namespace: str = NAMESPACE) -> list[Json]:
    """All rendered objects, without the definitions of custom resources."""
    return [obj for path, text in render(values, namespace).items() if path != _CRDS for obj in parsed(path, text)]


def parsed(path: str, text: str) -> Iterator[Json]:
    """The objects of one rendered template."""
    if path.endswith(".yaml"):
        yield from chart.read_manifests(text)


def one(found: list[Json], kind: str, name: str) -> Json:
    """The object of that kind and name."""
    (obj,) = [obj for obj in found if (obj["kind"], obj["metadata"]["name"]) == (kind, name)]
    return obj


def kinds(found: list[Json]) -> set[tuple[str, str]]:
    """Kind and name of each."""
    return {(obj["kind"], obj["metadata"]["name"]) for obj in found}


def pods(found: list[Json]) -> dict[str, Json]:
    """Pod templates of the workloads, by the workload's name."""
    workloads = ("Deployment", "DaemonSet", "StatefulSet")
    return {obj["metadata"]["name"]: obj["spec"]["template"] for obj in found if obj["kind"] in workloads}


def environment(container: Json) -> dict[str, Any]:
    """The variables of a container: their values, or where these come from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def configuration(found: list[Json]) -> Json:
    """The configuration of the reconciler that the ConfigMap holds."""
    content: Json = yaml.safe_load(one(found, "ConfigMap", "network")["data"]["config.yaml"])
    return content


def snapshot(name: str) -> str:
    """All that the values render: templates in order, without empty lines. The definitions of custom resources, which
    are the same for all, and the dashboard are left out: their files are kept as they are rendered."""
    parts = []
    for path, text in sorted(render(values_of(name)).items()):
        lines = [line for line in text.splitlines() if line.strip()]
        if lines and path not in (_CRDS, "templates/monitoring-configmap.yaml"):
            parts.append("\n".join([f"# {path}", *lines, ""]))
    return "---\n".join(parts)


def metrics_in(text: str) -> set[str]:
    """Names of our metrics in PromQL."""
    return set(re.findall(r"\b(?:edgefarm|abbot)_[a-z_]+", text))


def dashboard() -> Json:
    """The Grafana dashboard."""
    content: Json = json.loads((CHART / "files" / "dashboards" / "edgefarm-network.json").read_text())
    return content


if __name__ == "__main__":
    for each in NAMES:
        (SNAPSHOTS / f"{each}.yaml").write_text(snapshot(each))
