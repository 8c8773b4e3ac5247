"""Decides what is wrong with a pod and its sidecar, from the pod as the API server shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cli.doctor.webhook import has_sidecar
from edgefarm import names
from edgefarm.findings import Code, Finding, fine, wrong
from reconciler.ports import Object

_OURS: Final = (names.SIDECAR_CONTAINER, names.INIT_CONTAINER)
#: https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go
_PULL_REASONS: Final = (
    *("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"),
    *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
)
_ENDED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True)
class PodFacts:
    """`warnings` are what Events on the pod say, the newest last; `registered_at` is when the webhook was registered
    (RFC 3339), `sidecar_says` what its `/readyz` answers, each empty where it is not known."""

    name: str
    pod: Object | None
    warnings: Sequence[str] = ()
    registered_at: str = ""
    sidecar_says: str = ""


def check_pod(facts: PodFacts) -> list[Finding]:
    """From the label to the sidecar's own word; it ends at the first failure."""
    subject = f"Pod {facts.name}"
    if facts.pod is None:
        return [wrong(Code.POD_ABSENT, subject, "there is no such pod", "correct its name, or write -n NAMESPACE")]
    found = _injection(subject, facts, facts.pod)
    if any(finding.advice for finding in found) or _has_ended(facts.pod):
        return found
    return [*found, *_sidecar(subject, facts, facts.pod)]


def is_running(pod: Object) -> bool:
    """Whether its sidecar runs, so that it can be asked."""
    return any("running" in (status.get("state") or {}) for status in _statuses(pod))


def _injection(subject: str, facts: PodFacts, pod: Object) -> list[Finding]:
    metadata = pod["metadata"]
    network = (metadata.get("labels") or {}).get(names.LABEL_NETWORK)
    if not network:
        message = f"it has no label {names.LABEL_NETWORK}, so it belongs to no network"
        advice = f"give the workload's pod template the label {names.LABEL_NETWORK}: <network>"
        return [wrong(Code.POD_NOT_LABELLED, subject, message, advice)]
    found = [fine(Code.POD_NOT_LABELLED, subject, f"its label names network {network}")]
    if has_sidecar(pod):
        return [*found, fine(Code.POD_NOT_INJECTED, subject, "it has the sidecar")]
    return [*found, _not_injected(subject, facts, metadata)]


def _not_injected(subject: str, facts: PodFacts, metadata: Mapping[str, Any]) -> Finding:
    if (metadata.get("annotations") or {}).get(names.ANNOTATION_INJECT) == "false":
        message = f"it has no sidecar, because its annotation {names.ANNOTATION_INJECT} says so"
        return wrong(Code.POD_NOT_INJECTED, subject, message, "take the annotation away and create the pod again")
    again = "create the pod again: `kubectl rollout restart` of its workload"
    if facts.registered_at and str(metadata.get("creationTimestamp") or "") < facts.registered_at:
        message = "it has no sidecar, because it was created before the webhook was registered"
        return wrong(Code.POD_NOT_INJECTED, subject, message, again)
    message = (
        "it has no sidecar, because the webhook was not asked when it was created: the label came later, it is a "
        "static pod, or its namespace is left alone"
    )
    return wrong(Code.POD_NOT_INJECTED, subject, message, f"see the findings about the webhook; then {again}")


def _sidecar(subject: str, facts: PodFacts, pod: Object) -> list[Finding]:
    said = f"; an Event says: {facts.warnings[-1]}" if facts.warnings else ""
    for status in _statuses(pod):
        state = status.get("state") or {}
        if (reason := (state.get("waiting") or {}).get("reason")) in _PULL_REASONS:
            message = f"the image {status.get('image')} of {status['name']} cannot be pulled ({reason}){said}"
            advice = "see sidecar.image and imagePullSecrets of the chart, and that the node reaches the registry"
            return [wrong(Code.SIDECAR_IMAGE_PULL, subject, message, advice)]
    if not is_running(pod):
        message = f"its sidecar does not run: {_state(pod)}{said}"
        advice = f"`kubectl describe pod`, and `kubectl logs -c {names.SIDECAR_CONTAINER}` where it has run before"
        return [wrong(Code.SIDECAR_NOT_STARTED, subject, message, advice)]
    started = fine(Code.SIDECAR_NOT_STARTED, subject, "its sidecar runs")
    if _is_ready(pod):
        return [started, fine(Code.SIDECAR_NOT_READY, subject, facts.sidecar_says or "its sidecar is ready")]
    message = f"its sidecar is not ready{f': {facts.sidecar_says}' if facts.sidecar_says else ''}"
    advice = f"`kubectl logs -c {names.SIDECAR_CONTAINER}` says more; the findings about grants and servers say why"
    return [started, wrong(Code.SIDECAR_NOT_READY, subject, message, advice)]


def _state(pod: Object) -> str:
    """Why nothing of ours runs, in the words of the container's status."""
    for status in _statuses(pod):
        for state in (status.get("state") or {}).values():
            words = [str(state[name]) for name in ("reason", "message") if state.get(name)]
            if words:
                return ": ".join(words)
    phase = (pod.get("status") or {}).get("phase") or "unknown"
    return f"the pod is {phase}"


def _is_ready(pod: Object) -> bool:
    """A native sidecar with a startup probe is ready once that has passed and its readiness probe, if any, says so."""
    return all(status.get("ready") for status in _statuses(pod) if status["name"] == names.SIDECAR_CONTAINER)


def _statuses(pod: Object) -> list[Mapping[str, Any]]:
    status = pod.get("status") or {}
    found = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    return [each for each in found if each.get("name") in _OURS]


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in _ENDED
