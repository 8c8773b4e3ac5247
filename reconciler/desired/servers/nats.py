"""Renders what the NATS consists of that the reconciler runs, and says which changes of it cannot be followed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from edgefarm import names
from edgefarm.nats import serverconfig
from edgefarm.nats.serverconfig import HubIdentity, HubServer, ServerConfig
from edgefarm.units import parse_quantity
from reconciler.desired.servers import workload
from reconciler.desired.servers.workload import PodParts, Port, ServerSpec
from reconciler.ports import Object
from reconciler.server_configuration import ServerDeployment

#: Monitoring is not encrypted and asks nobody who he is: it is in no Service, which may be one to the world outside.
PORTS: Final = (
    Port("nats", serverconfig.CLIENT_PORT),
    Port("leafs", serverconfig.LEAF_PORT),
    Port("routes", serverconfig.ROUTE_PORT, published=False, peers=True),
    Port("monitor", serverconfig.MONITOR_PORT, published=False),
)
_CONFIG_FILE: Final = "nats.conf"
_AUTHORITY_FILE: Final = "ca.crt"
_CONFIG_FOLDER: Final = "/etc/nats"
_TLS_FOLDER: Final = "/etc/nats-tls"
_DATA_FOLDER: Final = "/data"
_RUN_FOLDER: Final = "/var/run/nats"
_PID_FILE: Final = f"{_RUN_FOLDER}/nats.pid"
#: The tenth of a volume that JetStream does not get is for account JWTs, and for what it writes beside messages.
_FILES_SHARE: Final = (9, 10)
#: Time to give streams to others, to let clients go, and to write what was accepted to a slow disk.
_GRACE_SECONDS: Final = serverconfig.LAME_DUCK_GRACE + serverconfig.LAME_DUCK + 25


@dataclass(frozen=True)
class Plan:
    """A deployment that can be followed, and one sentence for each thing that was asked for and cannot be."""

    deployment: ServerDeployment
    refusals: tuple[str, ...] = ()


def plan(deployment: ServerDeployment, found: Mapping[str, Any] | None, streams: int | None) -> Plan:
    """Hold on to what cannot be changed in the StatefulSet that is there (`found`).

    `streams` is how many a single server stores; None: not known. It deletes them when it becomes one of three
    (measured: what the new cluster does not know is an orphan to it), so that there must be none.
    """
    if found is None:
        return Plan(deployment)
    held, refusals = deployment, []
    replicas = _decided(found)
    refusal = _replicas_refusal(replicas, deployment.replicas, streams)
    if refusal:
        held, refusals = replace(held, replicas=replicas), [refusal]
    size, storage_class = _claimed(found)
    if parse_quantity(size) != parse_quantity(deployment.storage_size):
        held = replace(held, storage_size=size)
        refusals.append(_storage_refusal("size", deployment.storage_size, size))
    if storage_class != deployment.storage_class:
        held = replace(held, storage_class=storage_class)
        refusals.append(_storage_refusal("className", deployment.storage_class or '""', storage_class or '""'))
    return Plan(held, tuple(refusals))


def wants_to_grow(deployment: ServerDeployment, found: Mapping[str, Any] | None) -> bool:
    """Whether a single server shall become three: then it counts how many streams it has."""
    return found is not None and _decided(found) < deployment.replicas


def cannot_join(server: str, streams: int) -> str:
    """Why a server that was alone does not join those that were made for it."""
    return (
        f"{server} does not join the other servers, because it would lose its streams ({streams}), which were made "
        "when there were none yet. Back them up and delete them."
    )


def configuration(spec: ServerSpec, identity: HubIdentity, authorities: str) -> ServerConfig:
    """What all servers read. `authorities` (PEM) are mounted beside it, for routes."""
    deployment, (part, whole) = spec.deployment, _FILES_SHARE
    routes = [names.server_replica_host(spec.server, replica, spec.namespace) for replica in spec.replicas()]
    return serverconfig.server_config(
        HubServer(
            identity=identity,
            file_bytes=parse_quantity(deployment.storage_size) * part // whole,
            # The server reads 0 as "what this machine has". One byte is as good as none.
            memory_bytes=max(1, parse_quantity(deployment.extra_storage or "0")),
            routes=tuple(routes) if len(routes) > 1 else (),
            files={_AUTHORITY_FILE: authorities},
        )
    )


def config_map(spec: ServerSpec, config: ServerConfig, authorities: str) -> Object:
    """The ConfigMap: one volume, so that a server sees both of one version."""
    return workload.config_map(spec, {_CONFIG_FILE: config.text, _AUTHORITY_FILE: authorities})


def stateful_set(spec: ServerSpec, mark: str) -> Object:
    """The StatefulSet. With another `mark` its pods are started again, one after the other."""
    parts = PodParts(
        containers=[_container(spec)],
        volumes=[
            workload.config_volume(spec),
            workload.tls_volume(spec),
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
        fingerprint=mark,
        grace_seconds=_GRACE_SECONDS,
        storage_size=spec.deployment.storage_size,
    )
    wanted = workload.stateful_set(spec, parts)
    wanted["metadata"]["annotations"] = {
        names.ANNOTATION_STARTED_FOR: mark,
        names.ANNOTATION_REPLICAS: str(spec.deployment.replicas),
    }
    return wanted


def mark_of(found: Mapping[str, Any] | None) -> str:
    """The mark that the pods of a StatefulSet were started with; empty without one."""
    return _annotation(found, names.ANNOTATION_STARTED_FOR)


def _container(spec: ServerSpec) -> Object:
    def healthy(path: str) -> Object:
        return {"httpGet": {"path": f"/healthz{path}", "port": "monitor"}, "timeoutSeconds": 5}

    return {
        "name": "nats",
        "image": spec.deployment.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["nats-server", "-c", f"{_CONFIG_FOLDER}/{_CONFIG_FILE}"],
        "env": _environment(),
        "ports": workload.container_ports(spec),
        # Until its streams are those of the others, the next server must not go. Later, that one stream is behind is no
        # reason to end what also passes on live messages.
        "startupProbe": {**healthy(""), "periodSeconds": 2, "failureThreshold": 900},
        "readinessProbe": {**healthy("?js-server-only=true"), "periodSeconds": 5},
        "livenessProbe": {**healthy("?js-enabled-only=true"), "periodSeconds": 30},
        # It gives its streams to others, takes no more clients, lets those go that it has, and ends by itself; the
        # SIGTERM that follows at once changes nothing.
        "lifecycle": {"preStop": {"exec": {"command": ["nats-server", "--signal", f"ldm={_PID_FILE}"]}}},
        "resources": dict(spec.deployment.pod.resources),
        "securityContext": workload.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": workload.DATA_VOLUME, "mountPath": _DATA_FOLDER},
            {"name": workload.CONFIG_VOLUME, "mountPath": _CONFIG_FOLDER, "readOnly": True},
            {"name": workload.TLS_VOLUME, "mountPath": _TLS_FOLDER, "readOnly": True},
            {"name": "run", "mountPath": _RUN_FOLDER},
        ],
    }


def _environment() -> list[Object]:
    """What the configuration refers to."""
    values = {
        serverconfig.VARIABLE_PID_FILE: _PID_FILE,
        serverconfig.VARIABLE_CERTIFICATE: f"{_TLS_FOLDER}/tls.crt",
        serverconfig.VARIABLE_KEY: f"{_TLS_FOLDER}/tls.key",
        serverconfig.VARIABLE_AUTHORITY: f"{_CONFIG_FOLDER}/{_AUTHORITY_FILE}",
        serverconfig.VARIABLE_STREAMS: _DATA_FOLDER,
        serverconfig.VARIABLE_ACCOUNTS: f"{_DATA_FOLDER}/accounts",
    }
    return [
        {"name": serverconfig.VARIABLE_NAME, "valueFrom": workload.from_pod("metadata.name")},
        {"name": serverconfig.VARIABLE_ADDRESS, "valueFrom": workload.from_pod("status.podIP")},
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _replicas_refusal(present: int, wanted: int, streams: int | None) -> str:
    if wanted < present:
        return (
            f"nats.replicas cannot be changed from {present} to {wanted}, because streams would be lost with the "
            f"servers that keep them: write {present}"
        )
    if wanted > present and streams != 0:
        stored = "the server does not tell how many streams it has" if streams is None else f"{streams} are stored"
        return (
            f"nats.replicas cannot be changed from {present} to {wanted} while there are streams ({stored}): a single "
            f"server's are lost when it joins others. Back them up and delete them first, or write {present}"
        )
    return ""


def _storage_refusal(member: str, wanted: str, present: str) -> str:
    server = names.NATS_SERVER
    return (
        f"nats.storage.{member} cannot be changed from {present} to {wanted}, because a StatefulSet's claims are "
        f"fixed: write {present}, or change the claims {workload.DATA_VOLUME}-{server}-* and then delete the "
        f"StatefulSet {server} with --cascade=orphan, so that it is made anew"
    )


def _decided(found: Mapping[str, Any]) -> int:
    """How many servers a StatefulSet was made for: somebody may have scaled it by hand, which is drift."""
    return int(_annotation(found, names.ANNOTATION_REPLICAS) or found["spec"]["replicas"])


def _annotation(found: Mapping[str, Any] | None, name: str) -> str:
    return str((((found or {}).get("metadata") or {}).get("annotations") or {}).get(name, ""))


def _claimed(found: Mapping[str, Any]) -> tuple[str, str]:
    """Size and storage class of the claims; the class is empty where the cluster has chosen."""
    claim = found["spec"]["volumeClaimTemplates"][0]["spec"]
    return str(claim["resources"]["requests"]["storage"]), str(claim.get("storageClassName") or "")
