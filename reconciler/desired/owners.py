"""Owner references: by them Kubernetes deletes what we have made when that for which it was made is gone."""

from __future__ import annotations

from reconciler.ports import Kind, Object


def owner_reference(kind: Kind, name: str, uid: str, *, controller: bool = False) -> Object:
    """That an object of this kind owns another; `controller`: it is the only one that looks after it."""
    reference: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "name": name, "uid": uid}
    return reference | {"controller": True} if controller else reference
