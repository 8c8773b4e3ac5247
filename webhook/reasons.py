"""Why a pod is not injected: reason codes, the sentence of each, and the two decisions that carry them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgefarm import names


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
    OTHER_DAPR = "OtherDapr"
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
    Reason.OTHER_DAPR: (
        "Dapr's own injector puts a second daprd into this pod ({what}): remove it, "
        f'or set the annotation {names.ANNOTATION_MODE} to "nats"'
    ),
    Reason.OTHER_INJECTION: (
        "the pod already has the sidecar of network {network!r} in mode {mode!r}: remove the container "
        f"{names.SIDECAR_CONTAINER} and the annotation {names.ANNOTATION_STATUS}"
    ),
    Reason.NAME_TAKEN: "the {what} name {name} belongs to the network sidecar: give yours another name",
    Reason.PORT_TAKEN: "port {port} of {container} belongs to the network sidecar: {hint}",
    Reason.PATH_TAKEN: "container {container} has its own volume at {path}, which belongs to the network sidecar",
}

_SENTENCE_LENGTH: Final = 400


@dataclass(frozen=True)
class Skip:
    """The pod is admitted unchanged."""

    reason: Reason
    sentence: str


@dataclass(frozen=True)
class Deny:
    """The pod is not admitted; the sentence tells its author what to change, and may quote the pod."""

    reason: Reason
    sentence: str
    #: The name of the annotation that is to be changed, if it is one.
    annotation: str = ""


def skip(reason: Reason, **facts: object) -> Skip:
    """Skip with the sentence of `reason`."""
    return Skip(reason, _sentence(reason, facts))


def deny(reason: Reason, *, annotation: str = "", **facts: object) -> Deny:
    """Deny with the sentence of `reason`."""
    return Deny(reason, _sentence(reason, facts), annotation)


def _sentence(reason: Reason, facts: Mapping[str, object]) -> str:
    # Pods are validated after us: a name in them may be as long as a request.
    return _SENTENCES[reason].format(**facts)[:_SENTENCE_LENGTH]
