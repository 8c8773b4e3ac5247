"""Volumes, claims and storage classes: their defaults, what is refused in them, and the class that claims get."""

from __future__ import annotations

from typing import Any, Final

from localcluster.apiserver.failures import Cause
from localcluster.apiserver.store import Store

Json = dict[str, Any]

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
#: What a PersistentVolume says besides its source.
_VOLUME_FIELDS: Final = frozenset(
    [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ]
)


def is_default_class(storage_class: Json) -> bool:
    """Whether claims without a class get this one."""
    annotations = storage_class["metadata"].get("annotations") or {}
    return bool(annotations.get(_DEFAULT_CLASS) == "true")


def admit_claim(claim: Json, store: Store) -> None:
    """Name the default class in a new claim that names none, as the DefaultStorageClass admission plugin does."""
    if claim["spec"].get("storageClassName") is not None:
        return
    classes = [stored.content for stored in store.select(("storage.k8s.io", "storageclasses"))]
    chosen = [one["metadata"] for one in classes if is_default_class(one)]
    if chosen:
        # The newest one, where somebody made several.
        newest = max(chosen, key=lambda metadata: (metadata["creationTimestamp"], metadata["name"]))
        claim["spec"]["storageClassName"] = newest["name"]


def complete_claim(claim: Json) -> None:
    claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    claim.setdefault("status", {}).setdefault("phase", "Pending")


def complete_volume(volume: Json) -> None:
    spec = volume.setdefault("spec", {})
    spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
    spec.setdefault("volumeMode", "Filesystem")
    volume.setdefault("status", {}).setdefault("phase", "Pending")


def complete_class(storage_class: Json) -> None:
    storage_class.setdefault("reclaimPolicy", "Delete")
    storage_class.setdefault("volumeBindingMode", "Immediate")


def claim_problems(claim: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a PersistentVolumeClaim."""
    spec = claim["spec"]
    if old is not None:
        mutable = {"resources", "volumeAttributesClassName"}
        if not old["spec"].get("volumeName"):
            mutable.add("volumeName")
        if old["spec"].get("storageClassName") is None:
            mutable.add("storageClassName")
        if _without(spec, mutable) != _without(old["spec"], mutable):
            hint = (
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound "
                "claims"
            )
            return [Cause.forbidden("spec", hint)]
    causes = _mode_problems(spec)
    if not ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        causes.append(Cause.required("spec.resources[storage]"))
    return causes


def volume_problems(volume: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a PersistentVolume."""
    spec = volume["spec"]
    causes = _mode_problems(spec)
    if not (spec.get("capacity") or {}).get("storage"):
        causes.append(Cause.required("spec.capacity"))
    sources = sorted(spec.keys() - _VOLUME_FIELDS)
    if not sources:
        causes.append(Cause.required("spec", "must specify a volume type"))
    causes += [Cause.forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in sources[1:]]
    if old is not None and any(spec.get(name) != old["spec"].get(name) for name in sources):
        causes.append(Cause.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable"))
    return causes


def class_problems(storage_class: Json, old: Json | None) -> list[Cause]:
    """What Kubernetes refuses in a StorageClass."""
    causes = [] if storage_class.get("provisioner") else [Cause.required("provisioner")]
    for field, values in (("reclaimPolicy", ("Delete", "Retain")), ("volumeBindingMode", _BINDING_MODES)):
        if storage_class[field] not in values:
            causes.append(Cause.unsupported(field, storage_class[field], values))
    if old is not None:
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            if storage_class.get(field) != old.get(field):
                causes.append(Cause.invalid(field, storage_class.get(field), "field is immutable"))
    return causes


_BINDING_MODES: Final = ("Immediate", "WaitForFirstConsumer")


def _mode_problems(spec: Json) -> list[Cause]:
    modes = spec.get("accessModes") or []
    if not modes:
        return [Cause.required("spec.accessModes", "at least 1 access mode is required")]
    return [Cause.unsupported("spec.accessModes", mode, _MODES) for mode in modes if mode not in _MODES]


def _without(spec: Json, fields: set[str]) -> Json:
    return {key: value for key, value in spec.items() if key not in fields}
