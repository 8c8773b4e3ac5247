"""Renders what every server that the reconciler runs consists of: a hardened StatefulSet, Services and a budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from edgefarm import names
from reconciler.desired.servers.authority import LABELS
from reconciler.ports import CONFIGMAP, POD_DISRUPTION_BUDGET, SERVICE, STATEFUL_SET, Kind, Object
from reconciler.server_configuration import ServerDeployment

#: The user of all servers; numeric, because kubelet cannot prove that a named one is not root.
USER: Final = 65532
#: Name of the volume with a replica's data, and of those with the files of ConfigMap and certificate.
DATA_VOLUME: Final = "data"
CONFIG_VOLUME: Final = "config"
TLS_VOLUME: Final = "tls"
#: By these the API server refuses every change of a StatefulSet.
_IMMUTABLE: Final = ("podManagementPolicy", "selector", "serviceName", "volumeClaimTemplates")


@dataclass(frozen=True)
class Port:
    """A port of a server, by the name that probes and Services use. `published`: clients reach it by the Service."""

    name: str
    number: int
    published: bool = True
    peers: bool = False


@dataclass(frozen=True)
class ServerSpec:
    """One server as all its objects need it. `owners` are owner references: with their objects it goes."""

    server: str
    namespace: str
    deployment: ServerDeployment
    ports: tuple[Port, ...]
    owners: tuple[Object, ...]

    @property
    def selector(self) -> dict[str, str]:
        """Labels of its pods by which they are found; no part of them can ever change."""
        return {names.LABEL_TYPE: names.TYPE_SERVER, names.LABEL_SERVER: self.server}

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all its objects."""
        return {**LABELS, **self.selector}

    def replicas(self) -> tuple[str, ...]:
        """Names of its pods."""
        return tuple(names.server_replica(self.server, ordinal) for ordinal in range(self.deployment.replicas))


@dataclass(frozen=True)
class PodParts:
    """What is special about the pods of a server.

    `fingerprint` is text that changes when running replicas must be started again to follow: the pod template holds its
    digest. `on_delete`: who replaces the pods is the controller of the server, not that of StatefulSets.
    """

    containers: Sequence[Object]
    volumes: Sequence[Object]
    fingerprint: str
    grace_seconds: int
    storage_size: str
    service_account: str = ""
    on_delete: bool = False
    init_containers: Sequence[Object] = field(default=())


def service(spec: ServerSpec) -> Object:
    """The Service for clients; only replicas that are ready."""
    options = spec.deployment.service
    wanted = _object(spec, SERVICE, spec.server)
    if options.annotations:
        wanted["metadata"]["annotations"] = dict(options.annotations)
    wanted["spec"] = {
        "type": options.type,
        **({"clusterIP": options.cluster_ip} if options.cluster_ip else {}),
        "selector": spec.selector,
        "ports": [_service_port(port) for port in spec.ports if port.published],
    }
    return wanted


def peers(spec: ServerSpec) -> Object:
    """The headless Service by which replicas find each other, and the reconciler each of them; ready or not."""
    wanted = _object(spec, SERVICE, names.server_peers(spec.server))
    wanted["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": spec.selector,
        "ports": [_service_port(port) for port in spec.ports if port.peers],
    }
    return wanted


def config_map(spec: ServerSpec, data: Mapping[str, str]) -> Object:
    """The ConfigMap with the server's configuration."""
    return {**_object(spec, CONFIGMAP, spec.server), "data": dict(data)}


def budget(spec: ServerSpec) -> Object:
    """At most one replica goes at a time when nodes are drained; the only one may, or no node could be."""
    wanted = _object(spec, POD_DISRUPTION_BUDGET, spec.server)
    wanted["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": spec.selector}}
    return wanted


def stateful_set(spec: ServerSpec, parts: PodParts) -> Object:
    """The StatefulSet; its volumes go with it only where the configuration says so."""
    wanted = _object(spec, STATEFUL_SET, spec.server)
    kept = "Retain" if spec.deployment.keep_data else "Delete"
    wanted["spec"] = {
        "serviceName": names.server_peers(spec.server),
        "replicas": spec.deployment.replicas,
        # All at once: they wait for each other to become ready.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete" if parts.on_delete else "RollingUpdate"},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": kept, "whenScaled": "Retain"},
        "selector": {"matchLabels": spec.selector},
        "template": _template(spec, parts),
        "volumeClaimTemplates": [_claim(spec, parts)],
    }
    return wanted


def changeable(kind: Kind, wanted: Mapping[str, Any]) -> Object:
    """What of an object may still be written when it exists."""
    if kind != STATEFUL_SET:
        return dict(wanted)
    return {**wanted, "spec": {name: value for name, value in wanted["spec"].items() if name not in _IMMUTABLE}}


def template_digest(obj: Mapping[str, Any]) -> str:
    """The digest in a pod, or in the pod template of a StatefulSet: equal ones are of the same template."""
    template = obj["spec"].get("template", obj)
    return str((template["metadata"].get("annotations") or {}).get(names.ANNOTATION_DESIRED, ""))


def container_security() -> Object:
    """The security context of every container, which the restricted Pod Security Standard accepts."""
    return {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def container_ports(spec: ServerSpec) -> list[Object]:
    """The ports as a container declares them."""
    return [{"name": port.name, "containerPort": port.number} for port in spec.ports]


def config_volume(spec: ServerSpec) -> Object:
    """The ConfigMap as a volume."""
    return {"name": CONFIG_VOLUME, "configMap": {"name": spec.server}}


def tls_volume(spec: ServerSpec) -> Object:
    """The certificate as a volume."""
    return {
        "name": TLS_VOLUME,
        "secret": {"secretName": names.server_tls_secret(spec.server), "defaultMode": 0o440},
    }


def from_pod(path: str) -> Object:
    """Source of an environment variable: a field of the pod."""
    return {"fieldRef": {"fieldPath": path}}


def _object(spec: ServerSpec, kind: Kind, name: str) -> Object:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": spec.namespace,
            "labels": spec.labels,
            "ownerReferences": list(spec.owners),
        },
    }


def _service_port(port: Port) -> Object:
    return {"name": port.name, "port": port.number, "protocol": "TCP", "targetPort": port.number}


def _template(spec: ServerSpec, parts: PodParts) -> Object:
    pod = _pod(spec, parts)
    digest = hashlib.sha256(json.dumps([pod, parts.fingerprint], sort_keys=True).encode()).hexdigest()[:16]
    return {"metadata": {"labels": spec.labels, "annotations": {names.ANNOTATION_DESIRED: digest}}, "spec": pod}


def _pod(spec: ServerSpec, parts: PodParts) -> Object:
    options = spec.deployment.pod
    return {
        "serviceAccountName": parts.service_account or "default",
        "automountServiceAccountToken": bool(parts.service_account),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": parts.grace_seconds,
        "nodeSelector": dict(options.node_selector),
        "tolerations": [dict(toleration) for toleration in options.tolerations],
        "affinity": dict(options.affinity),
        "priorityClassName": options.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": spec.selector},
            }
            for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
        ],
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [dict(container) for container in parts.init_containers],
        "containers": [dict(container) for container in parts.containers],
        "volumes": [dict(volume) for volume in parts.volumes],
        # What would undermine the above: absent, and kept so.
        "hostNetwork": None,
        "hostPID": None,
        "hostIPC": None,
    }


def _claim(spec: ServerSpec, parts: PodParts) -> Object:
    storage_class = spec.deployment.storage_class
    return {
        "metadata": {"name": DATA_VOLUME, "labels": spec.labels},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            **({"storageClassName": storage_class} if storage_class else {}),
            "resources": {"requests": {"storage": parts.storage_size}},
        },
    }
