"""Injects what is in a manifest: a pod, or the pod template of a workload. Pure; the offline command reads and writes.

The API server asks the webhook about pods only. What a workload's pods would become is shown in its template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from edgefarm import names
from edgefarm.errors import InvalidResource
from webhook import patch
from webhook.decide import Decision, Inject, decide
from webhook.inject import inject
from webhook.pod import check_shape
from webhook.settings import Injection

Json = dict[str, Any]

#: Where a pod or pod template may be in an object: Pod, Deployment and the like, CronJob, PodTemplate.
_PLACES: Final = ((), ("spec", "template"), ("spec", "jobTemplate", "spec", "template"), ("template",))
#: Kubernetes' own kinds that always hold one; kinds of others may bear the same names.
_HOLDERS: Final = frozenset(
    {
        ("v1", "Pod"),
        ("v1", "PodTemplate"),
        ("v1", "ReplicationController"),
        *(("apps/v1", kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")),
        *(("batch/v1", kind) for kind in ("Job", "CronJob")),
    }
)


@dataclass(frozen=True)
class Outcome:
    """What becomes of one object: the decision is None where there is no pod in it."""

    title: str
    before: Json
    after: Json
    decision: Decision | None
    hint: str = ""


def outcomes(documents: list[Any], settings: Injection, namespace: str) -> Iterator[Outcome]:
    """The outcome for every object in the documents; raise InvalidResource for what is no Kubernetes object.

    `namespace` is that of objects that name none.
    """
    for number, document in enumerate(documents, 1):
        if document is None:  # two separators in a row
            continue
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise InvalidResource(f"document {number}", "is no Kubernetes object: it has no kind")
        items = document.get("items")
        for obj in items if isinstance(items, list) else [document]:
            if not isinstance(obj, dict):
                raise InvalidResource(f"document {number}", "has an item that is no object")
            yield _outcome(obj, settings, namespace)


def _outcome(obj: Json, settings: Injection, namespace: str) -> Outcome:
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind, name = obj.get("kind", "object"), metadata.get("name") or metadata.get("generateName") or "(no name)"
    title = f"{kind}/{name}"
    after = _copy(obj, title)
    holder = _pod_in(after)
    if holder is None:
        if (str(obj.get("apiVersion", "v1")), str(kind)) in _HOLDERS:
            raise InvalidResource(title, "has no pod in it: write spec.containers, in the template if it has one")
        return Outcome(title, obj, after, None)
    is_template = holder is not after
    owner = {"kind": kind, "name": str(name), "controller": True}
    inner = holder.get("metadata") if isinstance(holder.get("metadata"), dict) else {}
    made = {**holder, "metadata": {**(inner or {}), "ownerReferences": [owner]}} if is_template else holder
    try:
        pod = check_shape(made)
        decision = decide(pod, str(metadata.get("namespace") or namespace), settings)
        operations = inject(pod, decision.plan, settings) if isinstance(decision, Inject) else []
    except InvalidResource as error:
        raise InvalidResource(title, str(error)) from error
    if operations:
        patch.apply(made, _copy(operations, title))
        if is_template:
            del made["metadata"]["ownerReferences"]
            holder["metadata"] = made["metadata"]
    return Outcome(title, obj, after, decision, _hint(metadata, holder) if is_template else "")


def _copy(value: Any, title: str) -> Any:
    """As JSON has it, without any sharing: with an anchor of YAML two containers may have one and the same list."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResource(title, f"is nothing that JSON can hold: {error}") from error


def _pod_in(obj: Json) -> Json | None:
    for place in _PLACES:
        found: Any = obj
        for part in place:
            found = found.get(part) if isinstance(found, dict) else None
        spec = found.get("spec") if isinstance(found, dict) else None
        if isinstance(spec, dict) and "containers" in spec:
            return cast(Json, found)
    return None


def _hint(metadata: Mapping[str, Any], template: Mapping[str, Any]) -> str:
    """A label on the workload alone is the most frequent mistake."""
    on_template = (template.get("metadata") or {}).get("labels") or {}
    if names.LABEL_NETWORK in (metadata.get("labels") or {}) and names.LABEL_NETWORK not in on_template:
        return "the label is on the workload: put it under spec.template.metadata.labels"
    return ""
