"""The ServiceAccount admission of pods: the account's name, its existence and the kube-api-access volume."""

from __future__ import annotations

import secrets
from typing import Any, Final

from localcluster.apiserver.failures import forbidden
from localcluster.apiserver.resources import pods
from localcluster.apiserver.store import Store

Json = dict[str, Any]

MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_VOLUME_PREFIX: Final = "kube-api-access-"
#: Kubernetes asks for one hour and seven seconds, so that such tokens can be told apart.
_TOKEN_SECONDS: Final = 3607
_ALPHABET: Final = "bcdfghjklmnpqrstvwxz2456789"


def random_suffix() -> str:
    """Five characters, as Kubernetes appends to generated names."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(5))


def admit(pod: Json, store: Store) -> None:
    """Change a new pod in place as the ServiceAccount admission plugin does; 403 when its account does not exist."""
    spec, metadata = pod["spec"], pod["metadata"]
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    account = store.get(("", "serviceaccounts"), metadata["namespace"], name)
    if account is None:
        why = f'error looking up service account {metadata["namespace"]}/{name}: serviceaccount "{name}" not found'
        raise forbidden(pods(), metadata.get("name") or metadata.get("generateName", ""), why)
    if not spec.get("imagePullSecrets") and account.content.get("imagePullSecrets"):
        spec["imagePullSecrets"] = [dict(reference) for reference in account.content["imagePullSecrets"]]
    automount = spec.get("automountServiceAccountToken")
    if automount is None:
        automount = account.content.get("automountServiceAccountToken", True)
    if automount:
        _mount_token(spec)


def _mount_token(spec: Json) -> None:
    volumes: list[Json] = spec.get("volumes") or []
    present = next((volume["name"] for volume in volumes if volume["name"].startswith(_VOLUME_PREFIX)), None)
    name = present or _VOLUME_PREFIX + random_suffix()
    used = False
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        mounts = container.setdefault("volumeMounts", [])
        if all(mount.get("mountPath") != MOUNT_PATH for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": MOUNT_PATH})
            used = True
    if used and present is None:
        spec["volumes"] = [*volumes, {"name": name, "projected": {"defaultMode": 0o644, "sources": _sources()}}]


def _sources() -> list[Json]:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
