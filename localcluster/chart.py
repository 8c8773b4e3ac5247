"""Renders the product's chart with Helm's SDK, and says how localcluster runs it; installing is not done here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from edgefarm import names
from localcluster.client import Json

CHART: Final = Path(__file__).parents[1] / "charts" / "edgefarm-network"
_RELEASE: Final = "network"
_VALUES: Final = Path(__file__).with_name("values.yaml")
#: What others need before they can be, and what needs all others; the rest comes between, as with Helm.
_FIRST: Final = "CustomResourceDefinition"
_LAST: Final = "Deployment"

Values = dict[str, Any]


def selector(component: str) -> str:
    """Selects the pods of a component of the chart, such as `controller` or `webhook`."""
    return f"app.kubernetes.io/name={CHART.name},app.kubernetes.io/component={component}"


def own_values(daprd: Path, others: Values) -> Values:
    """Localcluster's values of the chart, with `others` merged over them. `daprd`: the binary that sidecars run."""
    values: Values = yaml.safe_load(_VALUES.read_text())
    return merged(values | {"sidecar": {"extraEnv": {"EDGEFARM_DAPRD": str(daprd)}}}, others)


def render(values: Values, namespace: str = names.CONTROLLER_NAMESPACE) -> dict[str, str]:
    """Rendered text by template, such as `templates/webhook-service.yaml`. Raises `helm_python.HelmError`."""
    # Imported late: it starts a Go runtime, which few of the processes that import this need.
    import helm_python

    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values=values, name=_RELEASE, namespace=namespace)
    return {path.partition("/")[2]: text for path, text in rendered.items()}


def objects(values: Values) -> list[Json]:
    """All that the chart makes of the values, in an order in which it can be applied."""
    texts = [text for path, text in render(values).items() if path.endswith(".yaml")]
    found = [obj for text in texts for obj in read_manifests(text)]
    return sorted(found, key=lambda obj: (obj["kind"] != _FIRST, obj["kind"] == _LAST))


def read_manifests(text: str) -> list[Json]:
    """The objects of a YAML file."""
    return [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]


def merged(values: Values, others: Values) -> Values:
    """As Helm does it: others win, members that are maps are merged in turn."""
    result = dict(values)
    for key, value in others.items():
        both = isinstance(value, dict) and isinstance(values.get(key), dict)
        result[key] = merged(values[key], value) if both else value
    return result
