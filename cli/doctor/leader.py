"""Asks the reconciler that leads for its findings, through the API server's pod proxy."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from cli.doctor.health_port import health_port
from cli.kube import Answer, Kube
from edgefarm.errors import KubernetesRefused, KubernetesUnavailable
from edgefarm.findings import Code, Finding, fine, unknown, wrong
from reconciler.ports import POD

_PATH: Final = "/diagnostics"
_HEALTH_PORT: Final = 8080
#: The reconciler gives up after 8 seconds.
_SECONDS: Final = 12.0
_LOG: Final = "see the log of the pod, and that API servers reach pods (network policies)"


def ask_leader(kube: Kube, namespace: str, pod: str, question: Mapping[str, str]) -> list[Finding]:
    """What the leader found; where it could not be asked, one finding that says why."""
    subject = f"Pod {namespace}/{pod}"
    try:
        port = health_port(kube.get(POD, namespace, pod) or {}, _HEALTH_PORT)
        answer = kube.ask_pod(namespace, pod, port, _PATH, question, seconds=_SECONDS)
    except KubernetesRefused as error:
        return [_refused(subject, error)]
    except KubernetesUnavailable as error:
        message = f"the reconciler that leads cannot be asked: {error}"
        return [wrong(Code.RECONCILER_NOT_ANSWERING, subject, message, _LOG)]
    return _read(subject, answer)


def _read(subject: str, answer: Answer) -> list[Finding]:
    if answer.status != HTTPStatus.OK or answer.body is None:
        said = " ".join(answer.text.split())[:200] or "nothing"
        message = f"the reconciler that leads answered with status {answer.status}: {said}"
        return [wrong(Code.RECONCILER_NOT_ANSWERING, subject, message, f"{_LOG}; is it as new as this command?")]
    try:
        found = [Finding.parse(each) for each in answer.body["findings"]]
    except (KeyError, TypeError, ValueError):
        message = "the reconciler that leads answered something that this command does not understand"
        return [wrong(Code.RECONCILER_NOT_ANSWERING, subject, message, "use the edgefarm command of its version")]
    return [fine(Code.RECONCILER_NOT_ANSWERING, subject, "the reconciler that leads answers"), *found]


def _refused(subject: str, error: KubernetesRefused) -> Finding:
    if error.status != HTTPStatus.FORBIDDEN:
        message = f"the reconciler that leads cannot be asked: {error}"
        return wrong(Code.RECONCILER_NOT_ANSWERING, subject, message, _LOG)
    message = f"Vault, NATS and grants are not looked at: {error}"
    advice = "ask for `get` on pods/proxy in the namespace of the controller, or somebody who has it"
    return unknown(Code.RECONCILER_MAY_NOT_BE_ASKED, subject, message, advice)
