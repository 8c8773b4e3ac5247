"""Finds what about a pod the sidecar cannot live with: taken names, ports and paths, foreign systems and injectors."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Final

from edgefarm import names
from webhook import pod as pods
from webhook.annotations import Mode, Options
from webhook.pod import Pod
from webhook.reasons import Deny, Reason, deny
from webhook.template import CREDENTIALS_DIR, HEALTH_PORT_NAME, Plan, ports_of

_OS_LABEL: Final = "kubernetes.io/os"
_DAPR_ENABLED: Final = "dapr.io/enabled"
_DAPR_CONTAINER: Final = "daprd"
#: What Dapr's injector takes for yes.
_TRUTHY: Final = ("y", "yes", "true", "t", "on", "1")
_OUR_VOLUMES: Final = (
    names.VOLUME_TOKEN,
    names.VOLUME_CREDENTIALS,
    names.VOLUME_COMPONENTS,
    names.VOLUME_DAPR_CONFIG,
)


def find_obstacle(pod: Pod, plan: Plan) -> Deny | None:
    """The first thing about the pod that the sidecar cannot live with."""
    options = plan.options
    if _is_windows(pod):
        return deny(Reason.WINDOWS, label=names.LABEL_NETWORK)
    if options.mode is Mode.DAPR:
        if pod["spec"].get("hostNetwork"):
            return deny(Reason.HOST_NETWORK)
        for what in _other_dapr(pod):
            return deny(Reason.OTHER_DAPR, what=what)
    if pods.has_sidecar(pod):
        found = _status(pod)
        if found != (plan.network, options.mode):
            return deny(Reason.OTHER_INJECTION, network=found[0], mode=found[1])
    else:
        for what, name in _taken_names(pod):
            return deny(Reason.NAME_TAKEN, what=what, name=name)
    for container, port, hint in _taken_ports(pod, plan):
        return deny(Reason.PORT_TAKEN, container=container, port=port, hint=hint)
    if options.mode is Mode.NATS:
        for container in _taken_paths(pod):
            return deny(Reason.PATH_TAKEN, container=container, path=CREDENTIALS_DIR)
    return None


def _is_windows(pod: Pod) -> bool:
    spec = pod["spec"]
    systems = ((spec.get("os") or {}).get("name"), (spec.get("nodeSelector") or {}).get(_OS_LABEL))
    return "windows" in systems or bool((spec.get("securityContext") or {}).get("windowsOptions"))


def _other_dapr(pod: Pod) -> Iterator[str]:
    if pods.annotations_of(pod).get(_DAPR_ENABLED, "").lower() in _TRUTHY:
        yield f"annotation {_DAPR_ENABLED}"
    for container in pods.containers_of(pod):
        if container["name"] == _DAPR_CONTAINER:
            yield f"container {_DAPR_CONTAINER}"


def _status(pod: Pod) -> tuple[str, str]:
    """Network and mode that an earlier round wrote down; empty texts when the annotation is not ours."""
    try:
        status = json.loads(pods.annotations_of(pod)[names.ANNOTATION_STATUS])
        return str(status["network"]), str(status["mode"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _taken_names(pod: Pod) -> Iterator[tuple[str, str]]:
    for container in pods.containers_of(pod):
        if pods.is_ours(container):
            yield "container", container["name"]
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] in _OUR_VOLUMES:
            yield "volume", volume["name"]


def _taken_ports(pod: Pod, plan: Plan) -> Iterator[tuple[str, int | str, str]]:
    """Who uses a port of ours, which one, and what to do about it."""
    options, ours = plan.options, ports_of(plan)
    if len(set(ours)) < len(ours):
        hint = f"{'Dapr' if options.mode is Mode.DAPR else 'the NATS relay'} listens there, write another port"
        yield f"the annotation {names.ANNOTATION_PORT}", options.health_port, hint
    if options.app_port in ours:
        yield f"the annotation {names.ANNOTATION_DAPR_APP_PORT}", options.app_port, "let the application use another"
    for container in pods.containers_of(pod):
        if pods.is_ours(container):
            continue
        for port in container.get("ports") or []:
            number = port.get("containerPort")
            if number in ours and (port.get("protocol") or "TCP") == "TCP":
                yield f"container {container['name']}", number, f"use another port{_elsewhere(number, options)}"
            elif port.get("name") == HEALTH_PORT_NAME:
                yield f"container {container['name']}", HEALTH_PORT_NAME, "give yours another name"


def _elsewhere(port: int | None, options: Options) -> str:
    """How one of our ports is moved, if it can be."""
    annotations = {options.health_port: names.ANNOTATION_PORT}
    if options.mode is Mode.NATS:
        annotations[options.nats_port] = names.ANNOTATION_NATS_PORT
    return f" or move ours with the annotation {annotations[port]}" if port in annotations else ""


def _taken_paths(pod: Pod) -> Iterator[str]:
    for container in pods.containers_of(pod):
        if pods.is_ours(container):
            continue
        for mount in container.get("volumeMounts") or []:
            if mount["name"] != names.VOLUME_CREDENTIALS and _is_credentials_dir(mount["mountPath"]):
                yield container["name"]
        for device in container.get("volumeDevices") or []:
            if _is_credentials_dir(device["devicePath"]):
                yield container["name"]


def _is_credentials_dir(path: str) -> bool:
    """Whether a path is ours, however it is written; in most images /var/run leads to /run."""
    if "edgefarm" not in path:  # most paths, without further work
        return False
    normal = "/" + posixpath.normpath(path).lstrip("/")
    return CREDENTIALS_DIR in (normal, f"/var{normal}")
