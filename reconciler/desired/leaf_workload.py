"""Renders the DaemonSet and the service account of an EdgeNetwork's leafs, as docs/architecture.md describes them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from edgefarm import names
from edgefarm.api.edge_network import EdgeNetwork
from reconciler.configuration import Configuration
from reconciler.desired.owners import owner_reference
from reconciler.ports import DAEMON_SET, EDGE_NETWORK, SERVICE_ACCOUNT, Object

#: The user of both programs; numeric, because kubelet cannot prove that a named one is not root.
_USER: Final = 65532
_TOKEN_DIR: Final = "/var/run/secrets/edgefarm.io"
_DATA_DIR: Final = "/var/lib/edgefarm"
_CONFIG_DIR: Final = "/etc/nats"
_TLS_DIR: Final = "/etc/nats-tls"
_CLIENT_PORT: Final = 4222
_MONITOR_PORT: Final = 8222
_HEALTH_PORT: Final = 3580
#: Kubernetes' own default for bound tokens.
_TOKEN_SECONDS: Final = 3600
#: Time for nats-server to write what it has accepted to a slow disk.
_GRACE_SECONDS: Final = 60
_SIDECAR: Final = ("python", "-m", "sidecar", "leaf")
_SIZES: Final[dict[str, Any]] = {
    "prepare": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "250m", "memory": "96Mi"}},
    "sidecar": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"cpu": "250m", "memory": "128Mi"}},
    # A limit on memory would end a leaf with many clients; one on CPU would slow the node's traffic.
    "nats": {"requests": {"cpu": "50m", "memory": "64Mi"}},
}


def labels_of(edge: EdgeNetwork) -> dict[str, str]:
    """Labels of the objects that are made for an EdgeNetwork."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_OF_NETWORK: edge.network,
        names.LABEL_EDGE_NETWORK: edge.name,
    }


def service_account(edge: EdgeNetwork) -> Object:
    """The account under which the leafs show themselves to Vault. They have no business with the Kubernetes API."""
    return {
        "apiVersion": SERVICE_ACCOUNT.api_version,
        "kind": SERVICE_ACCOUNT.kind,
        "metadata": _metadata(edge),
        "automountServiceAccountToken": False,
    }


def daemon_set(edge: EdgeNetwork, conflicts: Collection[str], configuration: Configuration) -> Object:
    """The leafs' DaemonSet; `conflicts` are nodes that are selected, but have another leaf of the network."""
    # The network is no part of the selector, which can never change.
    own = {names.LABEL_TYPE: names.TYPE_LEAF, names.LABEL_EDGE_NETWORK: edge.name}
    return {
        "apiVersion": DAEMON_SET.api_version,
        "kind": DAEMON_SET.kind,
        "metadata": _metadata(edge),
        "spec": {
            "selector": {"matchLabels": own},
            # All at once: a node that is away for weeks would otherwise keep the others from being updated. There is
            # one leaf on each node and none can take over for another, so going one by one would spare nobody.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%", "maxSurge": 0}},
            "template": {
                "metadata": {
                    "labels": {**labels_of(edge), **own},
                    "annotations": {"kubectl.kubernetes.io/default-container": "nats"},
                },
                "spec": _pod(edge, conflicts, configuration),
            },
        },
    }


def _metadata(edge: EdgeNetwork) -> Object:
    return {
        "namespace": edge.meta.namespace,
        "name": names.leaf_workload(edge.name),
        "labels": labels_of(edge),
        "ownerReferences": [owner_reference(EDGE_NETWORK, edge.name, edge.meta.uid, controller=True)],
    }


def _pod(edge: EdgeNetwork, conflicts: Collection[str], configuration: Configuration) -> Object:
    return {
        "serviceAccountName": names.leaf_workload(edge.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in configuration.leaf.image_pull_secrets] or None,
        # So that the sidecar can signal nats-server.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "nodeSelector": dict(edge.node_selector),
        "tolerations": [toleration.raw() for toleration in edge.tolerations],
        "affinity": {"nodeAffinity": _not_on(conflicts), "podAntiAffinity": _alone(edge.network)},
        "securityContext": {
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [_prepare(configuration), _sidecar(edge, configuration)],
        "containers": [_nats(configuration)],
        "volumes": _volumes(edge.network, configuration),
        # What would undermine the above: absent, and kept so.
        "hostNetwork": None,
        "hostPID": None,
        "hostIPC": None,
    }


def _not_on(nodes: Collection[str]) -> Object:
    """Node affinity that keeps the pods off these nodes: by name, because labels cannot hold every node's name. Only
    one value is allowed in each of these requirements."""
    if not nodes:
        return {}
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(nodes)]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": fields}]}}


def _alone(network: str) -> Object:
    """Pod affinity that keeps a second leaf of the network off a node until the first has ended: both would write to
    the same folder."""
    leafs = {names.LABEL_TYPE: names.TYPE_LEAF, names.LABEL_OF_NETWORK: network}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": leafs}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }


def _prepare(configuration: Configuration) -> Object:
    return {
        "name": "prepare",
        "image": configuration.leaf.sidecar_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*_SIDECAR, "prepare"],
        "env": [{"name": "EDGEFARM_LEAF_DATA_DIR", "value": _DATA_DIR}],
        "resources": _SIZES["prepare"],
        # kubelet makes the folder on the node's disk for root.
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "data", "mountPath": _DATA_DIR}],
    }


def _sidecar(edge: EdgeNetwork, configuration: Configuration) -> Object:
    return {
        "name": names.SIDECAR_CONTAINER,
        "image": configuration.leaf.sidecar_image,
        # An edge node must be able to start its leaf again while it is cut off, whatever the image's tag is.
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": list(_SIDECAR),
        "env": _environment(edge, configuration),
        "ports": [{"name": "health", "containerPort": _HEALTH_PORT}],
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": "health"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 600,
        },
        "resources": _SIZES["sidecar"],
        "securityContext": _security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": names.VOLUME_TOKEN, "mountPath": _TOKEN_DIR, "readOnly": True},
            {"name": "data", "mountPath": _DATA_DIR},
            {"name": "config", "mountPath": _CONFIG_DIR},
            {"name": "tls", "mountPath": _TLS_DIR, "readOnly": True},
        ],
    }


def _nats(configuration: Configuration) -> Object:
    def healthy(path: str) -> Object:
        return {"httpGet": {"path": path, "port": "monitor"}, "timeoutSeconds": 5}

    return {
        "name": "nats",
        "image": configuration.leaf.nats_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["nats-server", "-c", f"{_CONFIG_DIR}/leaf.conf"],
        "ports": [{"name": "nats", "containerPort": _CLIENT_PORT}, {"name": "monitor", "containerPort": _MONITOR_PORT}],
        # Reading back large streams takes its time, so the start may last; later, whether JetStream is behind is no
        # reason to end what also passes on live messages.
        "startupProbe": {**healthy("/healthz?js-enabled-only=true"), "periodSeconds": 1, "failureThreshold": 600},
        "readinessProbe": {**healthy("/healthz?js-enabled-only=true"), "periodSeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": "nats"}, "timeoutSeconds": 5, "periodSeconds": 30},
        "resources": _SIZES["nats"],
        "securityContext": _security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": _DATA_DIR},
            {"name": "config", "mountPath": _CONFIG_DIR},
            {"name": "tls", "mountPath": _TLS_DIR, "readOnly": True},
        ],
    }


def _environment(edge: EdgeNetwork, configuration: Configuration) -> list[Object]:
    vault, server = configuration.vault, configuration.vault.server
    variables: dict[str, str | Object | None] = {
        "EDGEFARM_NETWORK": edge.network,
        "EDGEFARM_NAMESPACE": edge.meta.namespace,
        "EDGEFARM_SERVICE_ACCOUNT": names.leaf_workload(edge.name),
        "EDGEFARM_POD_NAME": _from_pod("metadata.name"),
        "EDGEFARM_POD_IP": _from_pod("status.podIP"),
        "EDGEFARM_NODE_NAME": _from_pod("spec.nodeName"),
        "EDGEFARM_VAULT_ADDR": vault.client_address,
        "EDGEFARM_VAULT_AUTH_MOUNT": server.auth_mount,
        "EDGEFARM_VAULT_TRANSIT_MOUNT": server.transit_mount,
        "EDGEFARM_VAULT_KV_MOUNT": server.kv_mount,
        "EDGEFARM_VAULT_NAMESPACE": server.namespace or None,
        "EDGEFARM_CA_BUNDLE": _authorities(configuration),
        "EDGEFARM_TOKEN_FILE": f"{_TOKEN_DIR}/token",
        "EDGEFARM_AUDIENCE": vault.audience,
        "EDGEFARM_HEALTH_PORT": str(_HEALTH_PORT),
        "EDGEFARM_LEAF_DATA_DIR": _DATA_DIR,
        "EDGEFARM_LEAF_CONFIG_DIR": _CONFIG_DIR,
        "EDGEFARM_LEAF_TLS_DIR": _TLS_DIR,
        "EDGEFARM_LEAF_CLIENT_PORT": str(_CLIENT_PORT),
        "EDGEFARM_LEAF_MONITOR_PORT": str(_MONITOR_PORT),
    }
    return [
        {"name": name, "value" if isinstance(value, str) else "valueFrom": value}
        for name, value in variables.items()
        if value is not None
    ]


def _authorities(configuration: Configuration) -> str | None:
    """PEM of the authorities that Vault and the hub are verified against; None: the system's."""
    given = (configuration.vault.server.ca_pem, configuration.nats.ca_bundle)
    bundles = dict.fromkeys(bundle.strip() for bundle in given if bundle)
    return "\n".join((*bundles, "")) or None


def _volumes(network: str, configuration: Configuration) -> list[Object]:
    token = {"path": "token", "audience": configuration.vault.audience, "expirationSeconds": _TOKEN_SECONDS}
    return [
        {"name": "data", "hostPath": {"path": names.leaf_data_folder(network), "type": "DirectoryOrCreate"}},
        {"name": "config", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        {"name": "tls", "secret": {"secretName": names.leaf_service(network)}},
        {"name": names.VOLUME_TOKEN, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def _security() -> Object:
    return {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _from_pod(path: str) -> Object:
    return {"fieldRef": {"fieldPath": path}}
