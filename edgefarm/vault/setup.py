"""What an administrator sets up in Vault once: mounts and the Kubernetes auth method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from edgefarm.errors import VaultRefused
from edgefarm.vault.client import Vault
from edgefarm.vault.transport import Operation

_LIST_MOUNTS: Final = Operation("list mounts", "GET")
_WRITE_MOUNT: Final = Operation("enable mount", "POST", write=True)
_READ_KV_CONFIG: Final = Operation("read document settings", "GET")
_READ_AUTH_CONFIG: Final = Operation("read auth configuration", "GET")
_WRITE_AUTH_CONFIG: Final = Operation("write auth configuration", "POST", write=True)


@dataclass(frozen=True)
class KubernetesAuth:
    """How Vault asks a Kubernetes API server whose a service account token is.

    `host` is the API server's URL, `ca_pem` its authority. Without `reviewer_token` Vault shows the API server the
    very token that is logging in, whose service account then needs `system:auth-delegator`. `ca_pem` None: Vault runs
    in a pod of that cluster, and uses the authority and the token there.
    """

    host: str
    ca_pem: str | None
    reviewer_token: str | None = field(default=None, repr=False)


class VaultSetup:
    """Administration of one Vault through an administrator's client. Everything may be repeated."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._transport = vault.transport

    def ensure_mounts(self) -> None:
        """Enable transit, KV version 2 and Kubernetes auth where the settings say.

        Raises VaultRefused when something else is mounted there: two products must not share a mount unknowingly.
        """
        settings = self._vault.settings
        mounts = self._mounts("sys/mounts")
        self._ensure(mounts, "sys/mounts", settings.transit_mount, "transit")
        self._ensure(mounts, "sys/mounts", settings.kv_mount, "kv", {"version": "2"})
        self._ensure(self._mounts("sys/auth"), "sys/auth", settings.auth_mount, "kubernetes")

    def documents_ready(self) -> bool:
        """Whether the KV mount answers; for a moment after it was enabled it refuses every request with 400."""
        try:
            self._transport.send(_READ_KV_CONFIG, f"{self._vault.settings.kv_mount}/config")
        except VaultRefused as error:
            if error.status == HTTPStatus.BAD_REQUEST:
                return False
            raise
        return True

    def configure_auth(self, wanted: KubernetesAuth) -> None:
        """Point the Kubernetes auth method at its API server.

        Written every time a reviewer token is given, because Vault does not let it be read back and compared.
        """
        path = f"auth/{self._vault.settings.auth_mount}/config"
        reviewer = wanted.reviewer_token
        body: dict[str, Any] = {
            "kubernetes_host": wanted.host,
            "kubernetes_ca_cert": wanted.ca_pem or "",
            # Where Vault need not run in that cluster, its own pod's token and CA must not be used.
            "disable_local_ca_jwt": wanted.ca_pem is not None,
            # TokenReview checks the issuer; Vault's own check breaks on clusters with an issuer of their own.
            "disable_iss_validation": True,
        }
        now = self._transport.read(_READ_AUTH_CONFIG, path) or {}
        same = all(_same(now.get(key), value) for key, value in body.items())
        if same and reviewer is None and not now.get("token_reviewer_jwt_set"):
            return
        self._transport.send(_WRITE_AUTH_CONFIG, path, {**body, "token_reviewer_jwt": reviewer or ""})

    def _mounts(self, path: str) -> Mapping[str, Any]:
        return self._transport.read(_LIST_MOUNTS, path) or {}

    def _ensure(
        self, mounts: Mapping[str, Any], path: str, name: str, kind: str, options: Mapping[str, str] | None = None
    ) -> None:
        wanted = {"type": kind, "options": dict(options or {})}
        present = mounts.get(f"{name.strip('/')}/")
        if present is None:
            self._transport.send(_WRITE_MOUNT, f"{path}/{name}", wanted)
            return
        present_options = present.get("options") or {}
        if present.get("type") != kind or any(
            present_options.get(key) != value for key, value in (options or {}).items()
        ):
            raise VaultRefused(
                f"{path}/{name} is taken by something else (type {present.get('type')}): "
                f"choose another name for our {kind} mount"
            )


def _same(present: Any, wanted: Any) -> bool:
    """Equal, but for white space around text: Vault does not keep a trailing newline everywhere."""
    if isinstance(present, str) and isinstance(wanted, str):
        return present.strip() == wanted.strip()
    return bool(present == wanted)
