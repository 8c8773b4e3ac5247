"""What all workload controllers know about pods: readiness, templates, names, ownership. Plain functions."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

from localcluster.client import Json

#: As Kubernetes: no vowels and no look-alikes, so that names spell no words.
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def is_active(pod: Json) -> bool:
    """Whether the pod counts towards the replicas: neither over nor being deleted."""
    return phase(pod) not in ("Succeeded", "Failed") and "deletionTimestamp" not in pod["metadata"]


def phase(pod: Json) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def condition(obj: Json, kind: str) -> Json:
    """The condition of this type; empty when there is none."""
    conditions = obj.get("status", {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def is_ready(pod: Json) -> bool:
    return condition(pod, "Ready").get("status") == "True" and "deletionTimestamp" not in pod["metadata"]


def seconds_until_available(pod: Json, min_ready_seconds: int, now: datetime) -> float | None:
    """0 when the pod is available, seconds until it will be, None while it is not ready."""
    if not is_ready(pod):
        return None
    since = datetime.fromisoformat(condition(pod, "Ready")["lastTransitionTime"])
    return max(0.0, min_ready_seconds - (now.astimezone(UTC) - since).total_seconds()) if min_ready_seconds else 0.0


def template_hash(template: Json) -> str:
    """Ten characters that are the same for the same pod template."""
    digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def random_suffix(random_bytes: bytes) -> str:
    """The end of a generated name, as the API server makes it for generateName."""
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in random_bytes[:5])


def owner_reference(owner: Json) -> Json:
    """The ownerReference of a controller."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_controlled_by(obj: Json, owner: Json) -> bool:
    references = obj["metadata"].get("ownerReferences") or []
    return any(entry.get("controller") and entry["uid"] == owner["metadata"]["uid"] for entry in references)


def controller_of(obj: Json, kind: str) -> str | None:
    """Name of the controller of `obj`, when it is of this kind."""
    for entry in obj["metadata"].get("ownerReferences") or []:
        if entry.get("controller") and entry["kind"] == kind:
            return str(entry["name"])
    return None


def pod_from(template: Json, owner: Json, name: str, labels: dict[str, str] | None = None) -> Json:
    """A pod made of a workload's template."""
    metadata = copy.deepcopy(template.get("metadata") or {})
    metadata.pop("creationTimestamp", None)
    metadata["name"] = name
    metadata["namespace"] = owner["metadata"]["namespace"]
    metadata["labels"] = {**(metadata.get("labels") or {}), **(labels or {})}
    metadata["ownerReferences"] = [owner_reference(owner)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": copy.deepcopy(template["spec"])}


def with_condition(conditions: list[Json], entry: Json, now: str) -> list[Json]:
    """`conditions` with `entry` in the place of its type; the transition time is kept while the status stays."""
    before = next((old for old in conditions if old["type"] == entry["type"]), {})
    same = before.get("status") == entry["status"]
    entry = {**entry, "lastTransitionTime": before.get("lastTransitionTime", now) if same else now}
    return [old for old in conditions if old["type"] != entry["type"]] + [entry]


def matches_labels(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a plain map of labels (as in Services and nodeSelector) selects an object with `labels`."""
    return all(labels.get(key) == value for key, value in selector.items())
