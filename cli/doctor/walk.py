"""Walks the whole chain: what the API server shows, then what the reconciler finds behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cli.doctor.asking import allowed, not_shown
from cli.doctor.health_port import health_port
from cli.doctor.installation import CONTROLLER, WEBHOOK, InstallationFacts, check_installation, leader
from cli.doctor.leader import ask_leader
from cli.doctor.pod import PodFacts, check_pod, is_running
from cli.doctor.webhook import WebhookFacts, check_registration, check_trial, trial_pod
from cli.kube import Kube
from edgefarm import names
from edgefarm.errors import EdgefarmError, KubernetesRefused, KubernetesUnavailable
from edgefarm.findings import Code, Finding
from reconciler.desired.resources import FoundNetwork
from reconciler.diagnostics.network import ready
from reconciler.diagnostics.question import Question, Scope
from reconciler.ports import CONFIGMAP, LEASE, MUTATING_WEBHOOK, NETWORK, POD, SECRET, Kind, Object

_DEFINITION: Final = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "", namespaced=False)
_DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
_EVENT: Final = Kind("", "v1", "events", "Event")
#: In so many namespaces of a network the webhook is tried.
_MOST_TRIALS: Final = 5
_SIDECAR_PORT: Final = 3580
_READYZ_SECONDS: Final = 5.0


@dataclass(frozen=True)
class _Trial:
    """Where a labelled pod is tried, and with which network on its label."""

    namespace: str
    network: str


class Doctor:
    """One run of `edgefarm doctor`. KubernetesUnavailable when the API server cannot be asked at all."""

    def __init__(self, kube: Kube, controller_namespace: str, now: datetime) -> None:
        self._kube = kube
        self._namespace = controller_namespace
        self._now = now

    def findings(self, question: Question) -> list[Finding]:
        """All findings, in the order in which one thing depends on the other."""
        networks = allowed(lambda: self._kube.list(NETWORK, self._namespace))
        facts = self._installation()
        registration = allowed(lambda: self._kube.get(MUTATING_WEBHOOK, None, names.WEBHOOK_CONFIGURATION))
        secret = allowed(lambda: self._kube.get(SECRET, self._namespace, names.WEBHOOK_SECRET))
        found = check_installation(facts, self._now)
        found += check_registration(WebhookFacts(registration, secret), self._now)
        if registration:
            found += [self._try(trial) for trial in _trials(question, networks)]
        if question.scope is Scope.POD:
            return found + self._pod(question, registration, facts)
        if question.scope is Scope.INSTALLATION:
            return [*found, *self._behind(question, facts), *_networks(networks)]
        return [*found, *self._behind(question, facts)]

    def _installation(self) -> InstallationFacts:
        def get(kind: Kind, name: str) -> Object | KubernetesRefused | None:
            return allowed(lambda: self._kube.get(kind, self._namespace, name))

        return InstallationFacts(
            namespace=self._namespace,
            definitions=allowed(lambda: self._kube.list(_DEFINITION)),
            configuration=get(CONFIGMAP, names.CONFIGMAP),
            controller=get(_DEPLOYMENT, CONTROLLER),
            lease=get(LEASE, names.ELECTION_LEASE),
            webhook=get(_DEPLOYMENT, WEBHOOK),
        )

    def _behind(self, question: Question, facts: InstallationFacts) -> list[Finding]:
        """What only the reconciler can see. While none leads there is nobody to ask, as an earlier finding says."""
        holder = leader(facts.lease, self._now)
        if holder is None:
            return []
        asked = {"scope": question.scope.value, "name": question.name, "namespace": question.namespace}
        return ask_leader(self._kube, self._namespace, holder, {name: text for name, text in asked.items() if text})

    def _try(self, trial: _Trial) -> Finding:
        try:
            tried: Object | EdgefarmError = self._kube.would_create(POD, trial.namespace, trial_pod(trial.network))
        except (KubernetesRefused, KubernetesUnavailable) as error:
            tried = error
        return check_trial(trial.namespace, tried)

    def _pod(
        self, question: Question, registration: Object | KubernetesRefused | None, facts: InstallationFacts
    ) -> list[Finding]:
        subject = f"{question.namespace}/{question.name}"
        pod = allowed(lambda: self._kube.get(POD, question.namespace, question.name))
        if isinstance(pod, KubernetesRefused):
            return [not_shown(Code.POD_ABSENT, f"Pod {subject}", pod)]
        registered = registration["metadata"] if isinstance(registration, Mapping) else {}
        own = check_pod(
            PodFacts(
                name=subject,
                pod=pod,
                warnings=self._warnings(question) if pod is not None else (),
                registered_at=str(registered.get("creationTimestamp") or ""),
                sidecar_says=self._sidecar_says(question, pod),
            )
        )
        labelled = pod is not None and names.LABEL_NETWORK in (pod["metadata"].get("labels") or {})
        behind = self._behind(question, facts) if labelled else []
        # What both can see is told once, by who sees more of it.
        told = {finding.code for finding in own}
        return [*(finding for finding in behind if finding.code not in told), *own]

    def _sidecar_says(self, question: Question, pod: Object | None) -> str:
        if pod is None or not is_running(pod):
            return ""
        try:
            port = health_port(pod, _SIDECAR_PORT)
            answer = self._kube.ask_pod(question.namespace, question.name, port, "/readyz", {}, seconds=_READYZ_SECONDS)
        except (KubernetesRefused, KubernetesUnavailable):
            return ""  # its state is known without its words
        return " ".join(answer.text.split())

    def _warnings(self, question: Question) -> list[str]:
        """What the newest warnings on the pod say; the newest last."""
        fields = f"involvedObject.kind=Pod,involvedObject.name={question.name},type=Warning"
        events = allowed(lambda: self._kube.list(_EVENT, question.namespace, fields=fields))
        if isinstance(events, KubernetesRefused):
            return []
        in_order = sorted(events, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
        return [f"{event.get('reason')}: {event.get('message')}" for event in in_order]


def _trials(question: Question, networks: list[Object] | KubernetesRefused) -> Iterable[_Trial]:
    """One namespace of any network for the installation, those of a network, that of a pod."""
    if question.scope is Scope.POD:
        return [_Trial(question.namespace, "edgefarm-doctor")]
    if isinstance(networks, KubernetesRefused) or question.scope is Scope.DEVICE:
        return []
    asked = [
        _Trial(namespace, network["metadata"]["name"])
        for network in networks
        if question.scope is Scope.INSTALLATION or network["metadata"]["name"] == question.name
        for namespace in FoundNetwork.listed_namespaces(network)
    ]
    return asked[: 1 if question.scope is Scope.INSTALLATION else _MOST_TRIALS]


def _networks(networks: list[Object] | KubernetesRefused) -> list[Finding]:
    if isinstance(networks, KubernetesRefused):
        return [not_shown(Code.NETWORK_NOT_READY, "Networks", networks)]
    return [ready(Code.NETWORK_NOT_READY, f"Network {obj['metadata']['name']}", obj) for obj in networks]
