"""Decides what happens to a pod: inject, skip or deny. A plain function of the pod, its namespace and the settings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from edgefarm import names
from edgefarm.errors import InvalidName
from webhook import pod as pods
from webhook.annotations import InvalidAnnotation, Options, read_options, warnings
from webhook.obstacles import find_obstacle
from webhook.pod import Pod
from webhook.reasons import Deny, Reason, Skip, deny, skip
from webhook.settings import Injection
from webhook.template import Form, Plan, form_of

__all__ = ["Decision", "Deny", "Inject", "Reason", "Skip", "app_id", "decide", "skip"]

_MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"
_HASH_LABEL: Final = "pod-template-hash"
#: What a CronJob appends to its name for each Job: the scheduled time in minutes.
_CRONJOB_SUFFIX = re.compile(r"-\d{8}", re.ASCII)
_NOT_IN_LABELS = re.compile(r"[^a-z0-9-]")
_MOST_WARNINGS: Final = 5


@dataclass(frozen=True)
class Inject:
    """The pod gets (or keeps) the sidecar; `warnings` are shown to whoever creates it."""

    plan: Plan
    warnings: tuple[str, ...] = ()
    reason: Reason = Reason.INJECTED
    sentence: str = ""


Decision: TypeAlias = Inject | Skip | Deny


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
        return deny(Reason.INVALID_ANNOTATION, annotation=error.annotation, problem=error)
    if not options.inject:
        return skip(Reason.OPTED_OUT)
    plan = _plan(pod, namespace, options, settings)
    if isinstance(plan, Deny):
        return plan
    return find_obstacle(pod, plan) or Inject(plan, tuple(_warnings(pod, plan)))


def app_id(pod: Pod) -> str:
    """The default Dapr app id: the same for all replicas of a workload, a DNS label.

    It is the name of the Deployment, StatefulSet, DaemonSet, CronJob or Job that the pod belongs to, else the pod's.
    """
    metadata = pod.get("metadata", {})
    name = metadata.get("name") or metadata.get("generateName") or ""
    for owner in metadata.get("ownerReferences") or []:
        owner_name = owner.get("name")
        if owner.get("controller") and owner_name:
            name = owner_name
            if owner.get("kind") == "ReplicaSet":
                name = name.removesuffix("-" + pods.labels_of(pod).get(_HASH_LABEL, ""))
            elif owner.get("kind") == "Job" and _CRONJOB_SUFFIX.fullmatch(name[-9:]):
                name = name[:-9]
    label = _NOT_IN_LABELS.sub("-", name.lower()).lstrip("-")
    return label[:63].rstrip("-") or "app"


def _plan(pod: Pod, namespace: str, options: Options, settings: Injection) -> Plan | Deny:
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
    completes = (spec.get("restartPolicy") or "Always") != "Always"
    return Plan(
        network=network,
        namespace=namespace,
        service_account=account,
        app_id=options.app_id or app_id(pod),
        options=options,
        form=form_of(options.mode, settings, runs_to_completion=completes),
        runs_to_completion=completes,
    )


def _warnings(pod: Pod, plan: Plan) -> Iterator[str]:
    if plan.form is Form.CONTAINER and plan.runs_to_completion:
        yield "no native sidecars here: end this pod's sidecar with POST localhost:3500/v1.0/shutdown, or use mode nats"
    # Kubernetes cuts long lists.
    yield from itertools.islice(warnings(pods.annotations_of(pod), plan.options.mode), _MOST_WARNINGS)
