"""Decides what to tell the owner of a labelled pod that cannot get credentials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgefarm import names
from reconciler.desired.membership import DEFAULT_SERVICE_ACCOUNT
from reconciler.desired.resources import FoundNetwork

#: A pod in one of these phases needs no credentials any more.
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Advice:
    """Why a pod gets no credentials and what to create, for an Event."""

    reason: str
    message: str


def advise(
    pod: Mapping[str, Any], network: FoundNetwork | None, policies: Iterable[Mapping[str, Any]]
) -> Advice | None:
    """What to tell about the pod; None when it can get credentials or needs none.

    `network` is the one that the pod's label names, `policies` are the raw Policies of its namespace. Their status is
    what counts: it lists the service accounts whose grants are in place.
    """
    metadata = pod["metadata"]
    name = (metadata.get("labels") or {}).get(names.LABEL_NETWORK)
    if not name or "deletionTimestamp" in metadata or (pod.get("status") or {}).get("phase") in _FINISHED:
        return None
    namespace = metadata["namespace"]
    account = (pod.get("spec") or {}).get("serviceAccountName") or DEFAULT_SERVICE_ACCOUNT
    if network is None or network.deleting:
        return Advice("NetworkNotFound", f"there is no network {name!r}: create it, or correct the label on the pod")
    if namespace not in network.namespaces:
        return Advice(
            "NamespaceNotInNetwork",
            f"network {name!r} does not list the namespace {namespace!r}: add it to the Network's spec.namespaces",
        )
    if any(_grants(policy, name, account) for policy in policies):
        return None
    return Advice(
        "NoGrant",
        f"no Policy gives the service account {account!r} access to network {name!r}: create a Policy named "
        f"{account!r} in this namespace, or add {account!r} to spec.serviceAccounts of one",
    )


def _grants(policy: Mapping[str, Any], network: str, account: str) -> bool:
    status = policy.get("status") or {}
    return status.get("network") == network and account in (status.get("serviceAccounts") or ())
