"""Decides what happens to a pod: inject, skip or deny. A plain function of the pod, its namespace and the settings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from edgefarm import names
from edgefarm.errors import InvalidName
from webhook import pod as pods
from webhook.annotations import InvalidAnnotation, Mode, Options, read_options, unknown_annotations
from webhook.pod import Pod
from webhook.settings import Injection
from webhook.template import CREDENTIALS_DIR, Plan, ports_of


class Reason(StrEnum):
    """Why a pod was skipped or denied: the value is a label of the metrics, so it never changes."""

    INJECTED = "Injected"
    NOT_FOR_US = "NotForUs"
    MIRROR_POD = "MirrorPod"
    NOT_LABELLED = "NotLabelled"
    EXCLUDED_NAMESPACE = "ExcludedNamespace"
    OPTED_OUT = "OptedOut"
    INVALID_ANNOTATION = "InvalidAnnotation"
    INVALID_NETWORK = "InvalidNetwork"
    INVALID_SERVICE_ACCOUNT = "InvalidServiceAccount"
    WINDOWS = "Windows"
    HOST_NETWORK = "HostNetwork"
    OTHER_INJECTION = "OtherInjection"
    NAME_TAKEN = "NameTaken"
    PORT_TAKEN = "PortTaken"
    PATH_TAKEN = "PathTaken"


_SENTENCES: Final = {
    Reason.NOT_FOR_US: "only the creation of pods is changed, this is {what}",
    Reason.MIRROR_POD: "a mirror pod shows a static pod of the kubelet and cannot be changed",
    Reason.NOT_LABELLED: f"the pod has no label {names.LABEL_NETWORK}",
    Reason.EXCLUDED_NAMESPACE: "pods of the namespace {namespace} are never changed",
    Reason.OPTED_OUT: f'the annotation {names.ANNOTATION_INJECT} is "false"',
    Reason.INVALID_ANNOTATION: "{problem}",
    Reason.INVALID_NETWORK: f"the label {names.LABEL_NETWORK} must name a network: {{problem}}",
    Reason.INVALID_SERVICE_ACCOUNT: "the pod's service account cannot join a network: {problem}",
    Reason.WINDOWS: "the network sidecar runs on Linux only: remove the label {label} from Windows pods",
    Reason.HOST_NETWORK: (
        "a pod with hostNetwork cannot have Dapr's ports on its node's localhost: "
        f'set the annotation {names.ANNOTATION_MODE} to "nats" or remove hostNetwork'
    ),
    Reason.OTHER_INJECTION: (
        "the pod already has the sidecar of network {network!r} in mode {mode!r}: remove the container "
        f"{names.SIDECAR_CONTAINER} and the annotation {names.ANNOTATION_STATUS}"
    ),
    Reason.NAME_TAKEN: "the {what} name {name} belongs to the network sidecar: give yours another name",
    Reason.PORT_TAKEN: "port {port} of container {container} belongs to the network sidecar: use another port",
    Reason.PATH_TAKEN: "container {container} has its own volume at {path}, which belongs to the network sidecar",
}

_MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_OS_LABEL: Final = "kubernetes.io/os"
_SENTENCE_LENGTH: Final = 400
_HASH_LABEL: Final = "pod-template-hash"


@dataclass(frozen=True)
class Inject:
    """The pod gets (or keeps) the sidecar; `warnings` are shown to whoever creates it."""

    plan: Plan
    warnings: tuple[str, ...] = ()
    reason: Reason = Reason.INJECTED
    sentence: str = ""


@dataclass(frozen=True)
class Skip:
    """The pod is admitted unchanged."""

    reason: Reason
    sentence: str


@dataclass(frozen=True)
class Deny:
    """The pod is not admitted; the sentence tells its author what to change."""

    reason: Reason
    sentence: str


Decision: TypeAlias = Inject | Skip | Deny


def skip(reason: Reason, **facts: object) -> Skip:
    """Skip with the sentence of `reason`."""
    return Skip(reason, _sentence(reason, facts))


def deny(reason: Reason, **facts: object) -> Deny:
    """Deny with the sentence of `reason`."""
    return Deny(reason, _sentence(reason, facts))


def decide(pod: Pod, namespace: str, settings: Injection) -> Decision:
    """Decide about a pod that is being created in `namespace`."""
    annotations = pods.annotations_of(pod)
    if _MIRROR_ANNOTATION in annotations:
        return skip(Reason.MIRROR_POD)
    if names.LABEL_NETWORK not in pods.labels_of(pod):
        return skip(Reason.NOT_LABELLED)
    if namespace in settings.excluded_namespaces:
        return skip(Reason.EXCLUDED_NAMESPACE, namespace=namespace)
    try:
        options = read_options(annotations)
    except InvalidAnnotation as error:
        return deny(Reason.INVALID_ANNOTATION, problem=error)
    if not options.inject:
        return skip(Reason.OPTED_OUT)
    plan = _plan(pod, namespace, options)
    if isinstance(plan, Deny):
        return plan
    return _obstacle(pod, plan) or Inject(plan, tuple(_warnings(pod)))


def has_sidecar(pod: Pod) -> bool:
    """Whether an earlier round put the sidecar into this pod, even if another webhook altered it since."""
    return names.ANNOTATION_STATUS in pods.annotations_of(pod) and any(
        container["name"] == names.SIDECAR_CONTAINER for _, container in pods.containers_of(pod)
    )


def app_id(pod: Pod) -> str:
    """The default Dapr app id: the same for all replicas of a workload, a DNS label.

    It is the name of the Deployment, StatefulSet, DaemonSet or Job that the pod belongs to, else the pod's name.
    """
    metadata = pod.get("metadata", {})
    name = metadata.get("name") or metadata.get("generateName") or ""
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") and owner.get("name"):
            name = owner["name"]
            if owner.get("kind") == "ReplicaSet":
                name = name.removesuffix("-" + pods.labels_of(pod).get(_HASH_LABEL, ""))
    label = re.sub(r"[^a-z0-9-]", "-", name.lower()).lstrip("-")
    return label[:63].rstrip("-") or "app"


def _sentence(reason: Reason, facts: Mapping[str, object]) -> str:
    # Pods are validated after us: a name in them may be as long as a request.
    return _SENTENCES[reason].format(**facts)[:_SENTENCE_LENGTH]


def _plan(pod: Pod, namespace: str, options: Options) -> Plan | Deny:
    spec = pod["spec"]
    network = pods.labels_of(pod)[names.LABEL_NETWORK]
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    try:
        names.check_label(network, "network")
    except InvalidName as error:
        return deny(Reason.INVALID_NETWORK, problem=error)
    try:
        names.check_label(account, "service account")
    except InvalidName as error:
        return deny(Reason.INVALID_SERVICE_ACCOUNT, problem=error)
    return Plan(network, namespace, account, options.app_id or app_id(pod), options)


def _obstacle(pod: Pod, plan: Plan) -> Deny | None:
    """The first thing about the pod that the sidecar cannot live with."""
    spec = pod["spec"]
    if "windows" in ((spec.get("os") or {}).get("name"), (spec.get("nodeSelector") or {}).get(_OS_LABEL)):
        return deny(Reason.WINDOWS, label=names.LABEL_NETWORK)
    if spec.get("hostNetwork") and plan.options.mode is Mode.DAPR:
        return deny(Reason.HOST_NETWORK)
    if has_sidecar(pod):
        found = _status(pod)
        if found != (plan.network, plan.options.mode):
            return deny(Reason.OTHER_INJECTION, network=found[0], mode=found[1])
    else:
        for what, name in _taken_names(pod):
            return deny(Reason.NAME_TAKEN, what=what, name=name)
    for container, port in _taken_ports(pod, plan.options):
        return deny(Reason.PORT_TAKEN, container=container, port=port)
    if plan.options.mode is Mode.NATS:
        for container in _taken_paths(pod):
            return deny(Reason.PATH_TAKEN, container=container, path=CREDENTIALS_DIR)
    return None


def _status(pod: Pod) -> tuple[str, str]:
    """Network and mode that an earlier round wrote down; empty texts when the annotation is not ours."""
    try:
        status = json.loads(pods.annotations_of(pod)[names.ANNOTATION_STATUS])
        return str(status["network"]), str(status["mode"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _taken_names(pod: Pod) -> Iterator[tuple[str, str]]:
    for _, container in pods.containers_of(pod):
        if container["name"] == names.SIDECAR_CONTAINER:
            yield "container", container["name"]
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] in (names.VOLUME_TOKEN, names.VOLUME_CREDENTIALS, names.VOLUME_COMPONENTS):
            yield "volume", volume["name"]


def _taken_ports(pod: Pod, options: Options) -> Iterator[tuple[str, int]]:
    ours = ports_of(options.mode)
    if options.app_port in ours:
        yield "the application", options.app_port
    for _, container in pods.containers_of(pod):
        if container["name"] == names.SIDECAR_CONTAINER:
            continue
        for port in container.get("ports") or []:
            number = port.get("containerPort")
            if number in ours and port.get("protocol", "TCP") == "TCP":
                yield container["name"], number


def _taken_paths(pod: Pod) -> Iterator[str]:
    for _, container in pods.containers_of(pod):
        for mount in container.get("volumeMounts") or []:
            if mount["mountPath"].rstrip("/") == CREDENTIALS_DIR and mount["name"] != names.VOLUME_CREDENTIALS:
                yield container["name"]


def _warnings(pod: Pod) -> Iterator[str]:
    # Kubernetes asks for less than 120 characters each and cuts long lists.
    for name in unknown_annotations(pods.annotations_of(pod))[:3]:
        yield f"annotation {name[:64]} is unknown to edgefarm-network and ignored"
