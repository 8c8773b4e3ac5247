"""Walks the whole chain: what the API server shows, then what the reconciler finds behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cli.doctor.asking import allowed, not_shown
from cli.doctor.health_port import health_port
from cli.doctor.installation import (
    CONTROLLER,
    WEBHOOK,
    InstallationFacts,
    check_installation,
    check_presence,
    leader,
)
from cli.doctor.leader import ask_leader
from cli.doctor.pod import PodFacts, check_pod, is_running
from cli.doctor.webhook import WebhookFacts, check_registration, check_trial, registered_in, trial_pod
from cli.kube import Kube
from edgefarm import names
from edgefarm.errors import EdgefarmError, KubernetesRefused, KubernetesUnavailable
from edgefarm.findings import Code, Finding, Status, unknown
from reconciler.desired.resources import FoundNetwork
from reconciler.diagnostics.conditions import explained, group, ready
from reconciler.diagnostics.network import NetworkObjects, check_objects
from reconciler.diagnostics.question import Question, Scope
from reconciler.ports import (
    CONFIGMAP,
    EDGE_NETWORK,
    LEASE,
    MUTATING_WEBHOOK,
    NETWORK,
    POD,
    POLICY,
    SECRET,
    STREAM,
    Kind,
    Object,
)

_DEFINITION: Final = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "", namespaced=False)
_DEPLOYMENT: Final = Kind("apps", "v1", "deployments", "Deployment")
_EVENT: Final = Kind("", "v1", "events", "Event")
_Listed = list[Object] | KubernetesRefused
#: What explains that the webhook cannot be asked.
_OF_WEBHOOK: Final = (Code.WEBHOOK_NOT_RUNNING, Code.WEBHOOK_WITHOUT_CA, Code.WEBHOOK_CERTIFICATE_INVALID)
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
        absent = check_presence(facts, registered_in(registration))
        if absent is not None:
            return [absent]
        secret = allowed(lambda: self._kube.get(SECRET, self._namespace, names.WEBHOOK_SECRET))
        found = check_installation(facts, self._now)
        found += check_registration(WebhookFacts(registration, secret), self._now)
        if question.scope is Scope.POD:
            return found + self._pod(question, registration, facts, found)
        if registration:
            found += [self._try(trial, found) for trial in _trials(question, networks)]
        found += self._behind(question, facts)
        if question.scope is Scope.INSTALLATION:
            return [*found, *self._objects(networks, explained(found))]
        if question.scope is Scope.NETWORK and not any(finding.code == Code.NETWORK_ABSENT for finding in found):
            return [*found, *_network(question.name, networks, explained(found))]
        return found

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
        """What only the reconciler can see. While none leads there is nobody to ask."""
        holder = leader(facts.lease, self._now)
        if holder is None:
            message = "Vault, NATS and what they hold are not looked at, because no reconciler is known to lead"
            return [unknown(Code.RECONCILER_NOT_ANSWERING, "reconciler", message)]
        asked = {"scope": question.scope.value, "name": question.name, "namespace": question.namespace}
        return ask_leader(self._kube, self._namespace, holder, {name: text for name, text in asked.items() if text})

    def _objects(self, networks: _Listed, known: frozenset[str]) -> Iterable[Finding]:
        """How the objects of all tenants are. `known` are the reasons that are explained already."""
        if isinstance(networks, KubernetesRefused):
            yield not_shown(Code.NETWORK_NOT_READY, "Networks", networks)
        else:
            subjects = ((f"Network {obj['metadata']['name']}", obj) for obj in networks)
            yield from (ready(Code.NETWORK_NOT_READY, subject, obj, known) for subject, obj in subjects)
        for code, kind, namespace in (
            (Code.POLICY_NOT_READY, POLICY, None),
            (Code.EDGE_NETWORK_NOT_READY, EDGE_NETWORK, self._namespace),
            (Code.STREAM_NOT_READY, STREAM, None),
        ):
            listed = self._listed(kind, namespace)
            if isinstance(listed, KubernetesRefused):
                yield not_shown(code, f"{kind.kind} objects", listed)
            else:
                yield from group(code, kind.kind, listed, known)

    def _listed(self, kind: Kind, namespace: str | None) -> _Listed:
        return allowed(lambda: self._kube.list(kind, namespace))

    def _try(self, trial: _Trial, found: Iterable[Finding]) -> Finding:
        try:
            tried: Object | EdgefarmError = self._kube.would_create(POD, trial.namespace, trial_pod(trial.network))
        except (KubernetesRefused, KubernetesUnavailable) as error:
            tried = error
        is_explained = any(finding.code in _OF_WEBHOOK and finding.status is Status.ERROR for finding in found)
        return check_trial(trial.namespace, tried, explained=is_explained)

    def _pod(
        self,
        question: Question,
        registration: Object | KubernetesRefused | None,
        facts: InstallationFacts,
        found: Iterable[Finding],
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
        trial = _Trial(question.namespace, "edgefarm-doctor")
        # A pod that is not there may be one that the webhook does not let be created.
        tried = [self._try(trial, found)] if registration and (labelled or pod is None) else []
        if pod is None:
            tried = [finding for finding in tried if finding.code != Code.NAMESPACE_EXCLUDED]
        behind = self._behind(question, facts) if labelled else []
        # What both can see is told once, by who sees more of it.
        told = {finding.code for finding in own}
        return [*tried, *(finding for finding in behind if finding.code not in told), *own]

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


def _trials(question: Question, networks: _Listed) -> Iterable[_Trial]:
    """One namespace of any network for the installation, those of a network."""
    if isinstance(networks, KubernetesRefused) or question.scope is Scope.DEVICE:
        return []
    asked = [
        _Trial(namespace, network["metadata"]["name"])
        for network in networks
        if question.scope is Scope.INSTALLATION or network["metadata"]["name"] == question.name
        for namespace in FoundNetwork.listed_namespaces(network)
    ]
    return asked[: 1 if question.scope is Scope.INSTALLATION else _MOST_TRIALS]


def _network(name: str, networks: _Listed, known: frozenset[str]) -> list[Finding]:
    """What its own object tells, where the reconciler could not be asked about it."""
    if isinstance(networks, KubernetesRefused):
        return [not_shown(Code.NETWORK_NOT_READY, f"Network {name}", networks)]
    obj = next((obj for obj in networks if obj["metadata"]["name"] == name), None)
    return check_objects(NetworkObjects(name, obj), known)
