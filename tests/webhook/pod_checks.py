"""What must hold for every pod that is injected: checked on made shapes and on generated pods alike."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonpatch
import jsonschema_rs

from edgefarm import names
from tests.webhook.conftest import decision_on
from tests.webhook.pod_security import violations
from webhook.decide import Inject, Reason, Skip
from webhook.inject import inject
from webhook.pod import check_shape, is_ours
from webhook.settings import Injection

Json = dict[str, Any]

#: How many of the newest minor versions of Kubernetes a result is validated for.
VERSIONS = 3
_POD = "io.k8s.api.core.v1.Pod"


@functools.cache
def pod_schemas() -> dict[str, jsonschema_rs.Draft202012Validator]:
    """The API's own schema of a pod for the newest versions, from the files in the package kubernetes-validate.

    Strict: unknown members are errors.
    """
    package = importlib.util.find_spec("kubernetes_validate")
    assert package is not None
    assert package.origin is not None
    folders = (Path(package.origin).parent / "kubernetes-json-schema").glob("v*-local-strict")
    versions = sorted(folders, key=lambda folder: [int(part) for part in folder.name[1:].split("-")[0].split(".")])
    schemas = {}
    for folder in versions[-VERSIONS:]:
        definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
        schema = {"$ref": f"#/$defs/{_POD}", "$defs": definitions}
        schemas[folder.name.split("-")[0]] = jsonschema_rs.Draft202012Validator(schema)
    return schemas


def check_valid(pod: Json) -> None:
    """The pod is valid in every version that there is a schema for."""
    for version, schema in pod_schemas().items():
        problems = [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in schema.iter_errors(pod)]
        assert not problems, f"Kubernetes {version}: {problems[:3]}"


def check_injection(pod: Json, settings: Injection) -> Json:
    """Inject the pod, check all that must hold, and return the result."""
    before = copy.deepcopy(pod)
    operations = _operations(pod, settings)
    assert operations, "nothing was injected"
    assert pod == before, "the input was changed"
    patched: Json = jsonpatch.apply_patch(pod, operations)
    check_valid(patched)
    assert _operations(patched, settings) == [], "a second pass is not empty"
    _check_untouched(pod, patched)
    _check_unique(patched["spec"])
    _check_mounts(patched["spec"])
    if not violations(pod):
        assert violations(patched) == []
    _check_not_without_label(pod, settings)
    return patched


def _operations(pod: Json, settings: Injection) -> list[Json]:
    decision = decision_on(pod, "team-a", settings)
    assert isinstance(decision, Inject), decision
    assert all(len(warning) < 120 for warning in decision.warnings)
    return copy.deepcopy(inject(check_shape(pod), decision.plan, settings))  # injections share their parts


def _check_untouched(before: Json, after: Json) -> None:
    """Everything of the user's is there as it was; only additions of ours stand beside it."""
    for kind in ("initContainers", "containers"):
        old, new = before["spec"].get(kind) or [], _not_ours(after["spec"].get(kind) or [])
        assert [item["name"] for item in new] == [item["name"] for item in old]
        for was, now in zip(old, new, strict=True):
            _check_container(was, now)
    _check_prefix(before["spec"].get("volumes"), after["spec"].get("volumes"))
    changed = {"initContainers", "containers", "volumes", "securityContext"}
    for one, other in ((before["spec"], after["spec"]), (after["spec"], before["spec"])):
        assert all(other[member] == value for member, value in one.items() if member not in changed)
    old_security, new_security = (dict(pod["spec"].get("securityContext") or {}) for pod in (before, after))
    _check_prefix(old_security.pop("supplementalGroups", []), new_security.pop("supplementalGroups", []))
    assert new_security == old_security
    old_notes, new_notes = (pod["metadata"].get("annotations") or {} for pod in (before, after))
    assert {**new_notes, **old_notes, names.ANNOTATION_STATUS: ""} == {**new_notes, names.ANNOTATION_STATUS: ""}
    for member in (before["metadata"].keys() | after["metadata"].keys()) - {"annotations"}:
        assert after["metadata"][member] == before["metadata"][member]


def _check_container(was: Json, now: Json) -> None:
    for member in was.keys() | now.keys():
        if member in ("env", "volumeMounts"):
            _check_prefix(was.get(member), now.get(member))
        else:
            assert now[member] == was[member]


def _check_prefix(old: list[Any] | None, new: list[Any] | None) -> None:
    assert (new or [])[: len(old or [])] == (old or [])


def _check_unique(spec: Json) -> None:
    containers = [*(spec.get("initContainers") or []), *spec["containers"]]
    _unique(item["name"] for item in containers)
    _unique(volume["name"] for volume in spec.get("volumes") or [])
    for container in containers:
        _unique(item["name"] for item in container.get("env") or [])
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        _unique(mounts + [device["devicePath"] for device in container.get("volumeDevices") or []])
        _unique(port["name"] for port in container.get("ports") or [] if port.get("name"))
    running = [item for item in containers if item.get("restartPolicy") == "Always" or item in spec["containers"]]
    ports = [port for container in running for port in container.get("ports") or []]
    _unique((port["containerPort"], port.get("protocol", "TCP")) for port in ports)


def _unique(items: Iterable[Any]) -> None:
    listed = list(items)
    assert len(set(listed)) == len(listed), sorted(map(str, listed))


def _check_mounts(spec: Json) -> None:
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        used = container.get("volumeMounts") or [], container.get("volumeDevices") or []
        assert {item["name"] for items in used for item in items} <= volumes


def _check_not_without_label(pod: Json, settings: Injection) -> None:
    unlabelled = copy.deepcopy(pod)
    del unlabelled["metadata"]["labels"][names.LABEL_NETWORK]
    decision = decision_on(unlabelled, "team-a", settings)
    assert isinstance(decision, Skip)
    assert decision.reason is Reason.NOT_LABELLED


def _not_ours(containers: list[Any]) -> list[Any]:
    return [item for item in containers if not is_ours(item)]
