"""The members of the sections `vault` and `nats` that say how the reconciler runs a server itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edgefarm.api.reading import Fields
from edgefarm.errors import InvalidResource
from edgefarm.units import parse_quantity

_RETAIN: Final = "Retain"
_SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer")
_REPLICAS: Final = (1, 3)
_LOWEST_STORAGE: Final = "64Mi"


@dataclass(frozen=True)
class ServiceOptions:
    """How the Service is reached. `cluster_ip` empty: the cluster chooses."""

    type: str = _SERVICE_TYPES[0]
    cluster_ip: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PodOptions:
    """Where the pods may run and what they may use; raw JSON of a pod's spec."""

    resources: Mapping[str, Any] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    priority_class_name: str = ""
    image_pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServerDeployment:
    """A server that the reconciler makes and keeps. Sizes are Kubernetes quantities, as they were written.

    `extra_storage` is what the server takes besides: OpenBao on its volume for the audit log (empty: none), NATS in its
    memory for JetStream. `keep_data`: volumes and Secrets outlive the release.
    """

    image: str
    replicas: int
    storage_size: str
    storage_class: str
    extra_storage: str
    keep_data: bool
    hosts: tuple[str, ...]
    service: ServiceOptions
    pod: PodOptions


@dataclass(frozen=True)
class ServerDefaults:
    """What differs between the two servers: image, and name and default of `extra_storage`."""

    image: str
    extra_member: str
    extra_storage: str
    #: Members that say where a server is that somebody else runs.
    given_elsewhere: tuple[str, ...]


#: Members that only make sense with `deploy: true`.
_MEMBERS: Final = ("image", "replicas", "storage", "whenUninstalled", "hosts", "service", "pod")


def read_deployment(
    fields: Fields, defaults: ServerDefaults, read_host: Callable[[str], str]
) -> ServerDeployment | None:
    """What the section says about running the server; None with `deploy: false`.

    InvalidResource names a member that is wrong, or that does not go with `deploy`.
    """
    if not fields.boolean("deploy", False):
        # Values of a chart hold them either way: they wait for `deploy`.
        for member in (*_MEMBERS, defaults.extra_member):
            fields.has(member)
        return None
    for member in defaults.given_elsewhere:
        if fields.converted(member, bool):
            raise InvalidResource(
                fields.path(member),
                f"does not go with {fields.path('deploy')}: true: leave it out, or write deploy: false",
            )
    size, storage_class = _storage(fields.child("storage"))
    return ServerDeployment(
        image=fields.text("image", defaults.image),
        replicas=_replicas(fields),
        storage_size=size,
        storage_class=storage_class,
        extra_storage=_size(fields, defaults.extra_member, defaults.extra_storage),
        keep_data=fields.choice("whenUninstalled", (_RETAIN, "Delete"), _RETAIN) == _RETAIN,
        hosts=tuple(map(read_host, fields.texts("hosts", read_host))),
        service=_service(fields.child("service"), read_host),
        pod=_pod(fields.child("pod")),
    )


def _replicas(fields: Fields) -> int:
    replicas = fields.integer("replicas", 1, low=min(_REPLICAS), high=max(_REPLICAS))
    if replicas not in _REPLICAS:
        raise InvalidResource(
            fields.path("replicas"), f"must be 1 or 3, not {replicas}: two have no majority without the other"
        )
    return replicas


def _storage(fields: Fields) -> tuple[str, str]:
    size, storage_class = _size(fields, "size", "1Gi"), fields.text("className", "")
    fields.closed()
    if parse_quantity(size or "0") < parse_quantity(_LOWEST_STORAGE):
        raise InvalidResource(fields.path("size"), f"must be at least {_LOWEST_STORAGE}, not {size or 'nothing'}")
    return size, storage_class


def _size(fields: Fields, name: str, default: str) -> str:
    """A quantity as it was written, or empty text."""
    text = fields.text(name, default)
    if text:
        fields.quantity(name)
    return text


def _service(fields: Fields, read_host: Callable[[str], str]) -> ServiceOptions:
    options = ServiceOptions(
        type=fields.choice("type", _SERVICE_TYPES, _SERVICE_TYPES[0]),
        cluster_ip=(fields.converted("clusterIP", read_host) or "") if fields.optional("clusterIP") else "",
        annotations=fields.mapping("annotations"),
    )
    fields.closed()
    return options


def _pod(fields: Fields) -> PodOptions:
    options = PodOptions(
        resources=fields.converted("resources", _object) or {},
        node_selector=fields.mapping("nodeSelector"),
        tolerations=fields.converted("tolerations", _objects) or (),
        affinity=fields.converted("affinity", _object) or {},
        priority_class_name=fields.text("priorityClassName", ""),
        image_pull_secrets=read_references(fields, "imagePullSecrets"),
    )
    fields.closed()
    return options


def read_references(fields: Fields, name: str) -> tuple[str, ...]:
    """The names in a list of references as Kubernetes writes them: `[{name: …}]`."""
    return tuple(reference.text("name") for reference in fields.objects(name))


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be an object, as in the spec of a pod")
    return value


def _objects(value: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of objects, as in the spec of a pod")
    return tuple(map(_object, value))
