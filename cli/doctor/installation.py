"""Decides what is wrong with the installation, from its objects in the API server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cli.doctor.asking import not_shown
from edgefarm import names
from edgefarm.api.crd import definitions
from edgefarm.errors import InvalidResource, KubernetesRefused
from edgefarm.findings import Code, Finding, Status, fine, unknown, warning, wrong
from reconciler.configuration import parse_configuration
from reconciler.ports import Object

CONTROLLER: Final = "network-controller"
WEBHOOK: Final = "network-webhook"
_INSTALL: Final = "install the chart edgefarm-network (`helm upgrade --install`)"


@dataclass(frozen=True)
class InstallationFacts:
    """What the API server shows; None where there is no such object, an error where the user may not see it."""

    namespace: str
    definitions: Sequence[Object] | KubernetesRefused
    configuration: Object | KubernetesRefused | None
    controller: Object | KubernetesRefused | None
    lease: Object | KubernetesRefused | None
    webhook: Object | KubernetesRefused | None


def check_installation(facts: InstallationFacts, now: datetime) -> list[Finding]:
    """Definitions, configuration, and whether reconciler and webhook run."""
    controller = _deployment(Code.RECONCILER_ABSENT, CONTROLLER, facts.namespace, facts.controller)
    return [
        *_definitions(facts.definitions),
        _configuration(facts.configuration, facts.namespace),
        controller,
        _lease(facts.lease, now, runs=controller.status is not Status.ERROR),
        _deployment(Code.WEBHOOK_NOT_RUNNING, WEBHOOK, facts.namespace, facts.webhook),
    ]


def check_presence(facts: InstallationFacts, registered_in: str | None) -> Finding | None:
    """A finding where the namespace holds nothing of the chart; `registered_in` is the namespace of the Service by
    which the webhook is registered, None where that is not known."""
    if facts.configuration is not None or facts.controller is not None or facts.webhook is not None:
        return None
    advice = "if it is in another one, write --controller-namespace; else install the chart edgefarm-network"
    if registered_in not in (None, facts.namespace):
        advice = f"write --controller-namespace {registered_in}, because the webhook is registered as one of there"
    message = "edgefarm-network is not installed in it"
    return wrong(Code.NOT_INSTALLED, f"Namespace {facts.namespace}", message, advice)


def leader(lease: Object | KubernetesRefused | None, now: datetime) -> str | None:
    """The pod that leads; None while nobody does."""
    if lease is None or isinstance(lease, KubernetesRefused):
        return None
    spec = lease.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), str(spec.get("renewTime") or "")
    if not holder or not renewed:
        return None
    lasts = timedelta(seconds=int(spec.get("leaseDurationSeconds") or 0))
    # A replica adds a random part to the name of its pod.
    return holder.rpartition("_")[0] if datetime.fromisoformat(renewed) + lasts > now else None


def _definitions(found: Sequence[Object] | KubernetesRefused) -> list[Finding]:
    subject = "CustomResourceDefinitions"
    if isinstance(found, KubernetesRefused):
        return [not_shown(Code.CRDS_MISSING, subject, found)]
    by_name = {obj["metadata"]["name"]: obj for obj in found if "deletionTimestamp" not in obj["metadata"]}
    wanted = {obj["metadata"]["name"]: obj for obj in definitions().values()}
    missing = sorted(wanted.keys() - by_name.keys())
    outdated = sorted(name for name in wanted.keys() & by_name.keys() if not _serves(by_name[name], wanted[name]))
    bad = []
    if missing:
        bad.append(
            wrong(Code.CRDS_MISSING, subject, f"not installed, or being deleted: {', '.join(missing)}", _INSTALL)
        )
    if outdated:
        message = f"not those of this version: {', '.join(outdated)}; fields are dropped or refused"
        advice = "upgrade the chart with crds.install, or use the edgefarm command of the installed version"
        bad.append(wrong(Code.CRDS_OUTDATED, subject, message, advice))
    return bad or [fine(Code.CRDS_OUTDATED, subject, f"all {len(wanted)} are those of this version")]


def _serves(found: Object, wanted: Object) -> bool:
    """Whether a version is served with (at least) the schema that this program knows."""
    ours = wanted["spec"]["versions"][0]
    theirs = next((each for each in found["spec"]["versions"] if each["name"] == ours["name"]), None)
    return theirs is not None and bool(theirs.get("served")) and _contains(theirs.get("schema"), ours["schema"])


def _contains(found: Any, wanted: Any) -> bool:
    """API servers add defaults of their own, which is fine."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(
            _contains(found.get(name), value) or (name not in found and not value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_contains, found, wanted))
    return bool(found == wanted)


def _configuration(found: Object | KubernetesRefused | None, namespace: str) -> Finding:
    subject = f"ConfigMap {names.CONFIGMAP}"
    if isinstance(found, KubernetesRefused):
        return not_shown(Code.CONFIGURATION_INVALID, subject, found)
    if found is None:
        return wrong(Code.CONFIGURATION_MISSING, subject, f"it is missing in namespace {namespace}", _INSTALL)
    try:
        parse_configuration(found.get("data") or {}, namespace)
    except InvalidResource as error:
        message = f"it has a mistake, and what was in force before stays: {error}"
        advice = "correct the values of the chart (docs/architecture.md lists all members) and upgrade"
        return wrong(Code.CONFIGURATION_INVALID, subject, message, advice)
    return fine(Code.CONFIGURATION_INVALID, subject, "it can be read")


def _deployment(code: Code, name: str, namespace: str, found: Object | KubernetesRefused | None) -> Finding:
    subject = f"Deployment {name}"
    if isinstance(found, KubernetesRefused):
        return not_shown(code, subject, found)
    if found is None:
        return wrong(code, subject, "there is none", _INSTALL)
    wanted = (found.get("spec") or {}).get("replicas", 1)
    available = (found.get("status") or {}).get("availableReplicas") or 0
    if not wanted and not available:
        advice = f"`kubectl -n {namespace} scale deployment {name} --replicas=2`"
        return wrong(code, subject, "somebody scaled it to 0 replicas", advice)
    advice = f"`kubectl -n {namespace} describe deployment {name}` and the logs of its pods say why"
    if not available:
        return wrong(code, subject, f"none of its replicas is available, and {wanted} should be", advice)
    message = f"{available} of {wanted} replicas are available"
    return warning(code, subject, message, advice) if available < wanted else fine(code, subject, message)


def _lease(found: Object | KubernetesRefused | None, now: datetime, *, runs: bool) -> Finding:
    subject = f"Lease {names.ELECTION_LEASE}"
    if isinstance(found, KubernetesRefused):
        return not_shown(Code.RECONCILER_NOT_LEADING, subject, found)
    holder = leader(found, now)
    if holder is None and not runs:
        return unknown(Code.RECONCILER_NOT_LEADING, subject, "none can lead while none runs")
    if holder is None:
        message = "no reconciler leads, so nothing is made, mended or rotated; what is in place goes on working"
        advice = "see the logs of the pods of network-controller: they need rights on Leases and the API server"
        return wrong(Code.RECONCILER_NOT_LEADING, subject, message, advice)
    return fine(Code.RECONCILER_NOT_LEADING, subject, f"{holder} leads")
