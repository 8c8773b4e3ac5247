"""Decides what to tell the owner of a labelled pod that has no sidecar, or whose sidecar cannot get credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgefarm import names
from reconciler.desired.membership import DEFAULT_SERVICE_ACCOUNT
from reconciler.desired.resources import FoundNetwork

#: A pod in one of these phases needs no credentials any more.
_FINISHED = ("Succeeded", "Failed")
_OUR_CONTAINERS = (names.SIDECAR_CONTAINER, names.INIT_CONTAINER)


@dataclass(frozen=True)
class Advice:
    """Why a pod gets no credentials and what to do about it, for an Event."""

    reason: str
    message: str


def advise(
    pod: Mapping[str, Any], network: FoundNetwork | None, policies: Iterable[Mapping[str, Any]]
) -> Advice | None:
    """What to tell about the pod; None when it can get credentials or needs none.

    `network` is the one that the pod's label names, `policies` are the raw Policies of its namespace. Their status is
    what counts: it lists the service accounts whose grants are in place.
    """
    metadata, spec = pod["metadata"], pod.get("spec") or {}
    name = (metadata.get("labels") or {}).get(names.LABEL_NETWORK)
    if not name or "deletionTimestamp" in metadata or (pod.get("status") or {}).get("phase") in _FINISHED:
        return None
    namespace, annotations = metadata["namespace"], metadata.get("annotations") or {}
    if annotations.get(names.ANNOTATION_INJECT) == "false":
        return None
    if not _has_sidecar(spec):
        return _not_injected(namespace)
    account = spec.get("serviceAccountName") or DEFAULT_SERVICE_ACCOUNT
    if network is None or network.deleting:
        return Advice("NetworkNotFound", f"there is no network {name!r}: create it, or correct the label on the pod")
    if namespace not in network.namespaces:
        return Advice(
            "NamespaceNotInNetwork",
            f"network {name!r} does not list the namespace {namespace!r}: add it to the Network's spec.namespaces",
        )
    granting = next((policy for policy in policies if _grants(policy, name, account)), None)
    if granting is None:
        return Advice(
            "NoGrant",
            f"no Policy gives the service account {account!r} access to network {name!r}: create a Policy named "
            f"{account!r} in this namespace, or add {account!r} to spec.serviceAccounts of one",
        )
    found, expected = granting["metadata"]["name"], annotations.get(names.ANNOTATION_POLICY, "")
    return _other_policy(account, found, expected) if expected and found != expected else None


def _has_sidecar(spec: Mapping[str, Any]) -> bool:
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return any(container.get("name") in _OUR_CONTAINERS for container in containers)


def _not_injected(namespace: str) -> Advice:
    return Advice(
        "NotInjected",
        "the pod has the label but no sidecar, because nobody asked the webhook when it was created: the label came "
        f"later, the pod is a static one, or the namespace {namespace!r} is left alone. Create the pod again (in "
        "another namespace if that is the reason), or remove the label",
    )


def _other_policy(account: str, found: str, expected: str) -> Advice:
    return Advice(
        "OtherPolicy",
        f"the annotation {names.ANNOTATION_POLICY} names {expected!r}, but the service account {account!r} has its "
        f"rights from the Policy {found!r}: write {found!r} in the annotation, or run the pod as a service account of "
        f"the Policy {expected!r}",
    )


def _grants(policy: Mapping[str, Any], network: str, account: str) -> bool:
    status = policy.get("status") or {}
    return status.get("network") == network and account in (status.get("serviceAccounts") or ())
