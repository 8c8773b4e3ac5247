"""The members of a raw pod that the webhook reads, and the check that they have the shape Kubernetes gives them.

A pod stays the JSON that came in: nothing here converts, copies or drops a member.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from edgefarm import names
from edgefarm.errors import InvalidResource

_OUR_CONTAINERS: Final = (names.SIDECAR_CONTAINER, names.INIT_CONTAINER)


class EnvVar(TypedDict, total=False):
    name: str


class VolumeMount(TypedDict, total=False):
    name: str
    mountPath: str


class VolumeDevice(TypedDict, total=False):
    devicePath: str


class ContainerPort(TypedDict, total=False):
    name: str
    containerPort: int
    protocol: str


class Container(TypedDict, total=False):
    """A container or init container; members that are not named here are none of our business."""

    name: str
    env: list[EnvVar] | None
    volumeMounts: list[VolumeMount] | None
    volumeDevices: list[VolumeDevice] | None
    restartPolicy: str
    ports: list[ContainerPort] | None


class Volume(TypedDict, total=False):
    name: str


class OwnerReference(TypedDict, total=False):
    kind: str
    name: str
    controller: bool


class ObjectMeta(TypedDict, total=False):
    name: str
    generateName: str
    namespace: str
    labels: dict[str, str] | None
    annotations: dict[str, str] | None
    ownerReferences: list[OwnerReference] | None


class PodSpec(TypedDict, total=False):
    containers: list[Container]
    initContainers: list[Container] | None
    volumes: list[Volume] | None
    serviceAccountName: str
    serviceAccount: str
    hostNetwork: bool
    nodeSelector: dict[str, str] | None
    os: dict[str, str] | None
    securityContext: dict[str, Any] | None
    resources: dict[str, Any] | None
    restartPolicy: str


class Pod(TypedDict, total=False):
    """A pod as the API server sends it."""

    metadata: ObjectMeta
    spec: PodSpec


def check_shape(raw: object) -> Pod:
    """Return `raw` itself as a Pod; raise InvalidResource when a member that we read has the wrong type.

    The API server never sends such a pod, so this protects against other callers; it is not validation.
    """
    pod = _mapping(raw, "object")
    metadata = _mapping(pod.get("metadata", {}), "metadata")
    _strings(metadata, ("name", "generateName", "namespace"), "metadata")
    for member in ("labels", "annotations"):
        _string_map(metadata.get(member), f"metadata.{member}")
    for path, owner in _items(metadata.get("ownerReferences"), "metadata.ownerReferences"):
        _strings(owner, ("kind", "name"), path)
    spec = _mapping(pod.get("spec"), "spec")
    _strings(spec, ("serviceAccountName", "serviceAccount"), "spec")
    for member in ("nodeSelector", "os"):
        _string_map(spec.get(member), f"spec.{member}")
    security = _mapping(spec.get("securityContext") or {}, "spec.securityContext")
    _list(security.get("supplementalGroups"), "spec.securityContext.supplementalGroups")
    for kind in ("requests", "limits"):
        _mapping(_mapping(spec.get("resources") or {}, "spec.resources").get(kind) or {}, f"spec.resources.{kind}")
    _named(spec.get("volumes"), "spec.volumes")
    if not spec.get("containers"):
        raise InvalidResource("spec.containers", "is empty or missing")
    for member in ("containers", "initContainers"):
        for path, container in _items(spec.get(member), f"spec.{member}"):
            _check_container(container, path)
    return cast(Pod, raw)


def containers_of(pod: Pod) -> Iterable[tuple[str, Container]]:
    """Every init container and container with its JSON pointer."""
    spec = pod["spec"]
    for index, container in enumerate(spec.get("initContainers") or []):
        yield f"/spec/initContainers/{index}", container
    for index, container in enumerate(spec["containers"]):
        yield f"/spec/containers/{index}", container


def labels_of(pod: Pod) -> Mapping[str, str]:
    return pod.get("metadata", {}).get("labels") or {}


def annotations_of(pod: Pod) -> Mapping[str, str]:
    return pod.get("metadata", {}).get("annotations") or {}


def is_ours(container: Container) -> bool:
    """Whether a container has the name of one that we add."""
    return container["name"] in _OUR_CONTAINERS


def has_sidecar(pod: Pod) -> bool:
    """Whether an earlier round put our containers into this pod, even if another webhook altered them since."""
    return names.ANNOTATION_STATUS in annotations_of(pod) and any(
        is_ours(container) for _, container in containers_of(pod)
    )


def _check_container(container: Mapping[str, Any], path: str) -> None:
    if not isinstance(container.get("name"), str):
        raise InvalidResource(f"{path}.name", "is no text or missing")
    # Pods with thousands of variables exist: `inject` looks at them, once.
    _list(container.get("env"), f"{path}.env")
    _named(container.get("volumeMounts"), f"{path}.volumeMounts", ("name", "mountPath"))
    _named(container.get("volumeDevices"), f"{path}.volumeDevices", ("devicePath",))
    for port_path, port in _items(container.get("ports"), f"{path}.ports"):
        _strings(port, ("protocol",), port_path)


def _named(value: object, path: str, members: tuple[str, ...] = ("name",)) -> None:
    for item_path, item in _items(value, path):
        for member in members:
            if not isinstance(item.get(member), str):
                raise InvalidResource(f"{item_path}.{member}", "is no text or missing")


def _items(value: object, path: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for index, item in enumerate(_list(value, path)):
        item_path = f"{path}[{index}]"
        yield item_path, _mapping(item, item_path)


def _list(value: object, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidResource(path, "is no list")
    return value


def _mapping(value: object, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidResource(path, "is no object or missing")
    return value


def _strings(mapping: Mapping[str, Any], members: Iterable[str], path: str) -> None:
    for member in members:
        if not isinstance(mapping.get(member, ""), str):
            raise InvalidResource(f"{path}.{member}", "is no text")


def _string_map(value: object, path: str) -> None:
    for name, text in _mapping(value or {}, path).items():
        if not isinstance(text, str):
            raise InvalidResource(f"{path}[{name[:80]!r}]", "is no text")
