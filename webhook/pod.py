"""The members of a pod that the webhook reads, and the check that they have the types that Kubernetes gives them.

These TypedDicts are the one description of that: the decoder of a review follows them, passes over every other member
without making an object of it, and refuses a wrong type with the path of the member. They are no validation. To
Kubernetes a member that is null is absent, hence `| None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Required, TypedDict

import msgspec

from edgefarm import names
from edgefarm.errors import InvalidResource

_OUR_CONTAINERS: Final = (names.SIDECAR_CONTAINER, names.INIT_CONTAINER)


class EnvVar(msgspec.Struct, gc=False):
    """The one member that is not left a dict: pods have thousands of these, and dicts would double the time."""

    name: str


class VolumeMount(TypedDict):
    name: str
    mountPath: str


class VolumeDevice(TypedDict):
    devicePath: str


class ContainerPort(TypedDict, total=False):
    name: str | None
    containerPort: int | None
    protocol: str | None


class Container(TypedDict, total=False):
    """A container or init container."""

    name: Required[str]
    env: list[EnvVar] | None
    volumeMounts: list[VolumeMount] | None
    volumeDevices: list[VolumeDevice] | None
    restartPolicy: str | None
    ports: list[ContainerPort] | None


class Volume(TypedDict):
    name: str


class OwnerReference(TypedDict, total=False):
    kind: str | None
    name: str | None
    controller: bool | None


class ObjectMeta(TypedDict, total=False):
    name: str | None
    generateName: str | None
    namespace: str | None
    labels: dict[str, str] | None
    annotations: dict[str, str] | None
    ownerReferences: list[OwnerReference] | None


class PodOS(TypedDict, total=False):
    name: str | None


class PodSecurityContext(TypedDict, total=False):
    runAsUser: int | None
    fsGroup: int | None
    supplementalGroups: list[int] | None
    windowsOptions: dict[str, Any] | None


class PodResources(TypedDict, total=False):
    requests: dict[str, Any] | None
    limits: dict[str, Any] | None


class PodSpec(TypedDict, total=False):
    containers: Required[Annotated[list[Container], msgspec.Meta(min_length=1)]]
    initContainers: list[Container] | None
    volumes: list[Volume] | None
    serviceAccountName: str | None
    serviceAccount: str | None
    hostNetwork: bool | None
    nodeSelector: dict[str, str] | None
    os: PodOS | None
    securityContext: PodSecurityContext | None
    resources: PodResources | None
    restartPolicy: str | None


class Pod(TypedDict, total=False):
    """A pod as the API server sends it, without what is not named here."""

    metadata: ObjectMeta
    spec: Required[PodSpec]


def check_shape(raw: object) -> Pod:
    """What of `raw` the webhook reads; raise InvalidResource when a member of it has the wrong type."""
    try:
        return msgspec.convert(raw, Pod)
    except msgspec.ValidationError as error:
        problem, path = problem_and_path(error)
        raise InvalidResource(_with_key(path, raw) or "object", problem) from None


def problem_and_path(error: msgspec.ValidationError) -> tuple[str, str]:
    """What the decoder found wrong, and where; the path of the document itself is empty."""
    problem, _, path = str(error).partition(" - at `$")
    return problem, path.rstrip("`").removeprefix(".")


def _with_key(path: str, raw: Any) -> str:
    """A path with the name of the label or annotation, which the decoder leaves out."""
    place = path.removesuffix("[...]")
    if place == path:
        return path
    for member in place.split("."):
        raw = raw[member]
    key = next(key for key, value in raw.items() if not isinstance(value, str))
    return f"{place}[{key[:80]!r}]"


def containers_of(pod: Pod) -> list[Container]:
    """Every init container and container."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or ()), *spec["containers"]]


def labels_of(pod: Pod) -> Mapping[str, str]:
    return pod.get("metadata", {}).get("labels") or {}


def annotations_of(pod: Pod) -> Mapping[str, str]:
    return pod.get("metadata", {}).get("annotations") or {}


def is_ours(container: Container) -> bool:
    """Whether a container has the name of one that we add."""
    return container["name"] in _OUR_CONTAINERS


def has_sidecar(pod: Pod) -> bool:
    """Whether an earlier round put our containers into this pod, even if another webhook altered them since."""
    return names.ANNOTATION_STATUS in annotations_of(pod) and any(map(is_ours, containers_of(pod)))
