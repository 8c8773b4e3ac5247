"""One request to the API as the parts that handle it see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from localcluster.apiserver.resources import Resource
from localcluster.apiserver.tokens import User


@dataclass(frozen=True)
class Call:
    """Who wants what of which resource, and how. `name` is empty for collections and generated names."""

    resource: Resource
    user: User
    now: datetime
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    dry_run: bool = False
    manager: str = "unknown"
    force: bool = False
    #: Strict, Warn or Ignore: what unknown fields mean.
    field_validation: str = "Warn"
    #: Texts for `Warning` headers, filled while the request is handled.
    warnings: list[str] = field(default_factory=list)


def timestamp(moment: datetime) -> str:
    """metav1.Time: whole seconds, UTC."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def labels_of(obj: dict[str, Any]) -> dict[str, str]:
    labels = obj["metadata"].get("labels")
    return labels if isinstance(labels, dict) else {}
