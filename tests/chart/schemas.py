"""Kubernetes' own schemas of the newest versions, as the package kubernetes-validate brings them."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs

from tests.chart.rendering import Json

VERSIONS = ("1.35", "1.36", "1.37")
#: Groups of custom resources of others, for which there are no schemas here.
FOREIGN = frozenset({"cert-manager.io", "monitoring.coreos.com"})


def problems(obj: Json, version: str) -> Iterator[str]:
    """What is wrong with an object by that version's schema; unknown members are."""
    group, _, api_version = obj["apiVersion"].rpartition("/")
    if group in FOREIGN:
        return
    for error in _validator(version, group, api_version, obj["kind"]).iter_errors(obj):
        where = "/".join(map(str, error.instance_path))
        yield f"{obj['kind']} {obj['metadata']['name']} {where}: {error.message}"


@functools.cache
def _validator(version: str, group: str, api_version: str, kind: str) -> jsonschema_rs.Draft202012Validator:
    definitions = _definitions(version)
    wanted = {"group": group, "kind": kind, "version": api_version}
    (name,) = [
        name for name, schema in definitions.items() if wanted in schema.get("x-kubernetes-group-version-kind", ())
    ]
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


@functools.cache
def _definitions(version: str) -> Json:
    package = importlib.util.find_spec("kubernetes_validate")
    assert package is not None
    assert package.origin is not None
    (folder,) = (Path(package.origin).parent / "kubernetes-json-schema").glob(f"v{version}.*-local-strict")
    definitions: Json = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return definitions
