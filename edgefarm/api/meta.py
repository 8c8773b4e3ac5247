"""The part of `metadata` that the reconciler decides with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edgefarm.api.reading import read_time


@dataclass(frozen=True)
class Meta:
    """Identity and age of one object. `deleting` is true when only its finalizers keep it."""

    name: str
    namespace: str
    uid: str
    created: datetime
    generation: int = 1
    deleting: bool = False
    finalizers: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    #: uid of the controlling owner, if any.
    owner: str | None = None

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Meta:
        """From raw JSON as the API server sends it."""
        raw = obj["metadata"]
        owners = [ref["uid"] for ref in raw.get("ownerReferences", ()) if ref.get("controller")]
        return cls(
            name=raw["name"],
            namespace=raw.get("namespace", ""),
            uid=raw["uid"],
            created=read_time(raw["creationTimestamp"], "metadata.creationTimestamp"),
            generation=raw.get("generation", 1),
            deleting="deletionTimestamp" in raw,
            finalizers=tuple(raw.get("finalizers", ())),
            annotations=raw.get("annotations") or {},
            labels=raw.get("labels") or {},
            owner=owners[0] if owners else None,
        )
