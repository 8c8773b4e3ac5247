"""Our finalizer: on an object before anything is made outside for it, and off when all of that is gone."""

from __future__ import annotations

from edgefarm import names
from reconciler.ports import Kind, Kube, Object


def has_finalizer(obj: Object) -> bool:
    """Whether the object waits for us before it goes."""
    return names.FINALIZER in _finalizers(obj)


async def add_finalizer(kube: Kube, kind: Kind, obj: Object) -> Object:
    """Make sure that the object cannot go without us; the object as it is then. Raises Conflict when it has changed."""
    if has_finalizer(obj):
        return obj
    return await _patch(kube, kind, obj, [*_finalizers(obj), names.FINALIZER])


async def remove_finalizer(kube: Kube, kind: Kind, obj: Object) -> None:
    """Let the object go. Raises Conflict when it has changed."""
    await _patch(kube, kind, obj, [each for each in _finalizers(obj) if each != names.FINALIZER])


def _finalizers(obj: Object) -> list[str]:
    return obj["metadata"].get("finalizers") or []


async def _patch(kube: Kube, kind: Kind, obj: Object, finalizers: list[str]) -> Object:
    metadata = obj["metadata"]
    patch = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
    return await kube.patch(kind, metadata["namespace"], metadata["name"], patch)
