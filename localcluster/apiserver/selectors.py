"""Label selectors (text and object form) and field selectors as predicates over raw objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from localcluster.apiserver.failures import bad_request
from localcluster.apiserver.resources import Resource

Predicate = Callable[[Mapping[str, Any]], bool]

_SET: Final = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_KEY: Final = re.compile(r"[\w./-]+")
_VALUE: Final = re.compile(r"[\w.-]*")
_EVENT_FIELDS: Final = frozenset(
    {"reason", "type", "reportingComponent", "source"}
    | {
        f"involvedObject.{n}"
        for n in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
)
_FIELDS: Final[dict[tuple[str, str], frozenset[str]]] = {
    ("", "pods"): frozenset(
        {"spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"}
        | {"status.phase", "status.podIP", "status.nominatedNodeName"}
    ),
    ("", "events"): _EVENT_FIELDS,
    ("", "secrets"): frozenset({"type"}),
    ("", "namespaces"): frozenset({"status.phase"}),
    ("", "nodes"): frozenset({"spec.unschedulable"}),
    ("apps", "replicasets"): frozenset({"status.replicas"}),
    ("batch", "jobs"): frozenset({"status.successful"}),
}


def label_predicate(text: str) -> Predicate:
    """`a=b,c!=d,e in (f,g),h,!i` over an object's labels; 400 when it cannot be parsed."""
    tests = [_label_test(part.strip()) for part in _split(text) if part.strip()]

    def matches(obj: Mapping[str, Any]) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def matches_label_selector(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A metav1.LabelSelector; absent or empty selects everything."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(
        _holds(e["key"], e["operator"], frozenset(e.get("values") or ()), labels)
        for e in selector.get("matchExpressions") or ()
    )


def field_predicate(text: str, resource: Resource) -> Predicate:
    """`metadata.name=x,status.phase!=Running`; 400 for a field that this resource does not select by."""
    allowed = {"metadata.name"} | ({"metadata.namespace"} if resource.namespaced else set())
    allowed |= _FIELDS.get(resource.bucket, frozenset())
    if resource.definition is not None:
        allowed |= {f["jsonPath"].removeprefix(".") for f in resource.definition.get("selectableFields") or ()}
    # events.k8s.io calls the same fields differently.
    served = {new: old for old, new in resource.renames}
    tests: list[tuple[str, bool, str]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.match(r"^([^=!]+)(==|!=|=)(.*)$", part)
        if match is None:
            raise bad_request(f"invalid field selector: '{part}'")
        path = match[1].strip()
        head, _, rest = path.partition(".")
        path = ".".join(filter(None, (served.get(head, head), rest)))
        if path not in allowed:
            raise bad_request(f"field label not supported: {match[1].strip()}")
        tests.append((path, match[2] != "!=", match[3].strip()))
    return lambda obj: all((_field(obj, path) == value) is equal for path, equal, value in tests)


def _field(obj: Mapping[str, Any], path: str) -> str:
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):  # `source` of an Event selects by its component
        value = value.get("component")
    if value is None:
        return {"status.successful": "0", "status.replicas": "0", "spec.unschedulable": "false"}.get(path, "")
    return str(value)


def _split(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


def _label_test(part: str) -> Predicate:
    found = _SET.match(part)
    if found:
        values = frozenset(value.strip() for value in found[3].split(","))
        return partial(_holds, found[1], "In" if found[2] == "in" else "NotIn", values)
    for sign, operator in (("!=", "NotIn"), ("==", "In"), ("=", "In")):
        if sign in part:
            key, _, value = part.partition(sign)
            if not _KEY.fullmatch(key.strip()) or not _VALUE.fullmatch(value.strip()):
                raise bad_request(f"unable to parse requirement: {part!r}")
            return partial(_holds, key.strip(), operator, frozenset({value.strip()}))
    if not _KEY.fullmatch(part.removeprefix("!").strip()):
        raise bad_request(f"unable to parse requirement: {part!r}")
    if part.startswith("!"):
        return lambda labels: part[1:].strip() not in labels
    return lambda labels: part in labels


def _holds(key: str, operator: str, values: frozenset[str], labels: Mapping[str, str]) -> bool:
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return labels.get(key) not in values
    return (key in labels) is (operator == "Exists")
