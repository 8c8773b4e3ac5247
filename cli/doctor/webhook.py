"""Decides what is wrong with the webhook: its registration, its certificate, and what it did to a pod. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509

from cli.doctor.asking import not_shown
from edgefarm import names
from edgefarm.errors import EdgefarmError, KubernetesRefused
from edgefarm.findings import Code, Finding, fine, unknown, warning, wrong
from reconciler.keypairs import decode, hosts, read_certificates, signed_by, usable
from reconciler.ports import Object

_SUBJECT: Final = f"MutatingWebhookConfiguration {names.WEBHOOK_CONFIGURATION}"
_CERTIFICATE: Final = f"certificate of {names.WEBHOOK_SERVICE}"
#: The reconciler renews after two thirds of 90 days; who is nearer to the end than this was not renewed.
_SOON: Final = timedelta(days=7)
_ISSUER: Final = (
    "the reconciler issues it (webhook.issueCertificate), or cert-manager does: see the log and the Events of whoever "
    "it is"
)


@dataclass(frozen=True)
class WebhookFacts:
    """`registration` and `secret` (the certificate that is served) as the API server shows them."""

    registration: Object | KubernetesRefused | None
    secret: Object | KubernetesRefused | None


def check_registration(facts: WebhookFacts, now: datetime) -> list[Finding]:
    """Whether API servers ask the webhook, and whether they will trust it."""
    if isinstance(facts.registration, KubernetesRefused):
        return [not_shown(Code.WEBHOOK_ABSENT, _SUBJECT, facts.registration)]
    if facts.registration is None or not facts.registration.get("webhooks"):
        message = "it is missing, so labelled pods get no sidecar"
        return [wrong(Code.WEBHOOK_ABSENT, _SUBJECT, message, "install the chart edgefarm-network once more")]
    found = [fine(Code.WEBHOOK_ABSENT, _SUBJECT, "it is registered")]
    client = facts.registration["webhooks"][0].get("clientConfig") or {}
    authorities = _authorities(client)
    if not authorities:
        message = "it has no caBundle that can be read, so API servers do not trust the webhook and refuse pods"
        return [*found, wrong(Code.WEBHOOK_WITHOUT_CA, _SUBJECT, message, _ISSUER)]
    found.append(fine(Code.WEBHOOK_WITHOUT_CA, _SUBJECT, "its caBundle can be read"))
    if isinstance(facts.secret, KubernetesRefused):
        return [*found, not_shown(Code.WEBHOOK_CERTIFICATE_INVALID, _CERTIFICATE, facts.secret)]
    data = decode((facts.secret or {}).get("data"))
    return [*found, _certificate(data.get("tls.crt", b""), authorities, _host(client), now)]


def registered_in(registration: Object | KubernetesRefused | None) -> str | None:
    """The namespace of the Service by which the webhook is registered; None where it is registered by URL or not."""
    webhooks = registration.get("webhooks") if isinstance(registration, Mapping) else None
    service = (webhooks[0].get("clientConfig") or {}).get("service") if webhooks else None
    return str(service["namespace"]) if service else None


def check_trial(namespace: str, tried: Object | EdgefarmError, *, explained: bool = False) -> Finding:
    """What became of a labelled pod that was created on trial; an error is the API server's. `explained`: another
    finding tells already why the webhook cannot be asked."""
    subject = f"webhook for namespace {namespace}"
    if isinstance(tried, KubernetesRefused) and tried.status == HTTPStatus.NOT_FOUND:
        return unknown(
            Code.WEBHOOK_UNREACHABLE, subject, "there is no such namespace", "create it, or correct its name"
        )
    if isinstance(tried, KubernetesRefused):
        message = f"it could not be tried with a pod: {tried}"
        return unknown(Code.WEBHOOK_UNREACHABLE, subject, message, "try with the right to create pods there")
    if isinstance(tried, EdgefarmError) and explained:
        message = "no labelled pod can be created until what is wrong above is mended"
        return unknown(Code.WEBHOOK_UNREACHABLE, subject, message)
    if isinstance(tried, EdgefarmError):
        advice = (
            "see that the pods of network-webhook are ready, and that API servers reach them: network policies, "
            "firewalls between control plane and nodes, webhook.url"
        )
        return wrong(Code.WEBHOOK_UNREACHABLE, subject, f"no labelled pod can be created: {tried}", advice)
    if has_sidecar(tried):
        return fine(Code.WEBHOOK_UNREACHABLE, subject, "a labelled pod (on trial) gets the sidecar")
    message = "a labelled pod (on trial) gets no sidecar: the webhook is not asked there"
    advice = (
        "see namespaceSelector and failurePolicy of the registration (webhook.excludedNamespaces of the chart) and the "
        "labels of the namespace"
    )
    return wrong(Code.NAMESPACE_EXCLUDED, subject, message, advice)


def trial_pod(network: str) -> Object:
    """A pod with the label that satisfies the strictest Pod Security Standard and asks for next to nothing."""
    container = {
        "name": "trial",
        "image": "registry.k8s.io/pause:3.10",
        "resources": {name: {"cpu": "1m", "memory": "1Mi"} for name in ("requests", "limits")},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "edgefarm-doctor-", "labels": {names.LABEL_NETWORK: network}},
        "spec": {
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
    }


def has_sidecar(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has one of our containers."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return any(each.get("name") in (names.SIDECAR_CONTAINER, names.INIT_CONTAINER) for each in containers)


def _authorities(client: Mapping[str, Any]) -> tuple[bytes, ...]:
    try:
        return read_certificates(base64.b64decode(client.get("caBundle") or ""))
    except ValueError:
        return ()


def _host(client: Mapping[str, Any]) -> str:
    """The name that API servers verify."""
    if client.get("url"):
        return urlsplit(client["url"]).hostname or ""
    service = client.get("service") or {}
    return f"{service.get('name')}.{service.get('namespace')}.svc"


def _certificate(served: bytes, authorities: Iterable[bytes], host: str, now: datetime) -> Finding:
    problem = _problem(served, authorities, host, now)
    if problem:
        message = f"{problem}, so API servers refuse labelled pods"
        return wrong(Code.WEBHOOK_CERTIFICATE_INVALID, _CERTIFICATE, message, _ISSUER)
    end = x509.load_pem_x509_certificate(served).not_valid_after_utc
    if end - now < _SOON:
        message = f"it ends at {end:%Y-%m-%d %H:%M} UTC and should have been renewed"
        return warning(Code.WEBHOOK_CERTIFICATE_EXPIRING, _CERTIFICATE, message, _ISSUER)
    return fine(Code.WEBHOOK_CERTIFICATE_INVALID, _CERTIFICATE, f"it is valid until {end:%Y-%m-%d}")


def _problem(served: bytes, authorities: Iterable[bytes], host: str, now: datetime) -> str:
    if not read_certificates(served):
        return f"the Secret {names.WEBHOOK_SECRET} holds none"
    if not usable(served, now):
        return "it is not valid now"
    if host not in hosts(served):
        return f"it is not for {host}"
    # What is served may bring the certificates between it and the authority.
    chain, trusted = read_certificates(served), [each for each in authorities if usable(each, now)]
    if not any(signed_by(each, authority) for each in chain for authority in trusted):
        return "no valid authority of the registration's caBundle has signed it"
    return ""
