"""What a refusal by Vault means for the people who run the pod: one sentence that says what to create. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from edgefarm import names
from edgefarm.errors import VaultRefused
from sidecar.settings import Pod


def explain(pod: Pod, audience: str, token: str, refused: VaultRefused, now: float, no_grant: str) -> str:
    """Why Vault said no; `no_grant` is what it means when nothing is wrong with the token.

    Vault tells a stranger little, and its wording changes: what is wrong with the token is read from the token itself
    (not verified: it is our own), and otherwise there is no grant.
    """
    claims = _claims(token)
    audiences, subject, expires_at = claims.get("aud"), claims.get("sub"), claims.get("exp")
    wanted = f"system:serviceaccount:{pod.namespace}:{pod.service_account}"
    if isinstance(audiences, str):
        audiences = [audiences]
    if not claims:
        problem = "the pod's token file holds no service account token"
    elif not isinstance(audiences, list) or audience not in audiences:
        problem = (
            f"the pod's token has the wrong audience {audiences!r}: the projected volume must ask for {audience!r} "
            "(setting EDGEFARM_AUDIENCE of the webhook)"
        )
    elif isinstance(expires_at, int) and expires_at <= now:
        problem = "the pod's token has expired and was not replaced: check the kubelet of this node"
    elif isinstance(subject, str) and subject != wanted:
        problem = f"the pod's token belongs to {subject}, but the sidecar was told {wanted}"
    else:
        problem = no_grant
    return f"{problem} (Vault: {refused})"


def missing_grant(pod: Pod) -> str:
    """What has to exist for this pod to get credentials."""
    return (
        f"no Policy of network {pod.network} names service account {pod.service_account} in namespace {pod.namespace}: "
        f"create a Policy named {pod.service_account} there, or list it in a Policy's spec.serviceAccounts, "
        f"and check that Network {pod.network} lists the namespace"
    )


def other_policy(pod: Pod, found: str) -> str:
    """The service account is granted another Policy than the pod's author expects."""
    return (
        f"the pod expects Policy {pod.policy} (annotation {names.ANNOTATION_POLICY}), but service account "
        f"{pod.service_account} in namespace {pod.namespace} has Policy {found} of network {pod.network}: run the pod "
        f"as a service account of {pod.policy}, or list this one in its spec.serviceAccounts"
    )


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return {}
    return claims if isinstance(claims, dict) else {}
