"""Decides which agent holds a token, from what a TokenReview says about it. Pure.

The token must be bound to a pod: since Kubernetes 1.30 the review of such a token names the pod's node.
See https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgefarm import names
from edgefarm.agentbus import Denied

_USER_PREFIX: Final = "system:serviceaccount:"
_EXTRA_PREFIX: Final = "authentication.kubernetes.io/"
_ROLES: Final = {account: role for role, account in names.AGENT_SERVICE_ACCOUNTS.items()}


@dataclass(frozen=True)
class Identity:
    """Who an agent is, as the API server has proven."""

    role: str
    node: str
    pod: str
    pod_uid: str

    @property
    def device(self) -> str:
        """Name of its EdgeDevice."""
        return names.edge_device(self.role, self.node)


def identify(status: Mapping[str, Any], namespace: str) -> Identity | Denied:
    """Read the status of a TokenReview. Agents are the service accounts `names.AGENT_SERVICE_ACCOUNTS` of the
    controller namespace and nobody else."""
    # An API server that knows nothing of audiences confirms none, and would take the token of any audience.
    if status.get("authenticated") is not True or names.AGENT_AUDIENCE not in (status.get("audiences") or ()):
        why = str(status.get("error") or f"it is not meant for the audience {names.AGENT_AUDIENCE}")
        return Denied("TokenRefused", f"The Kubernetes API server does not confirm the agent's token: {why}")
    user = status.get("user") or {}
    role = _role_of(str(user.get("username")), namespace)
    if role is None:
        accounts = " or ".join(f"{namespace}/{account}" for account in sorted(_ROLES))
        return Denied("NotAnAgent", f"The token belongs to {user.get('username')}; agents run as {accounts}.")
    extra = user.get("extra") or {}
    pod, uid, node = (_only(extra, name) for name in ("pod-name", "pod-uid", "node-name"))
    if not pod or not uid:
        return Denied("NotAPod", "The token is not bound to a pod: use a projected serviceAccountToken volume.")
    if not node:
        return Denied(
            "NoNode", "The API server does not say on which node the token's pod runs: Kubernetes 1.30 or later does."
        )
    return Identity(role, node, pod, uid)


def _role_of(username: str, namespace: str) -> str | None:
    prefix = f"{_USER_PREFIX}{namespace}:"
    return _ROLES.get(username.removeprefix(prefix)) if username.startswith(prefix) else None


def _only(extra: Mapping[str, Any], name: str) -> str:
    """The value of a member that has exactly one."""
    values = extra.get(f"{_EXTRA_PREFIX}{name}")
    return str(values[0]) if isinstance(values, list) and len(values) == 1 else ""
