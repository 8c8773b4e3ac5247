"""Every label, annotation and derived name of the project. No other module may build one of these by hand.

Names of networks, namespaces, policies and service accounts are DNS labels (RFC 1123, no dots, at most 63
characters), so names joined with `.` can be taken apart again and never collide.
"""

from __future__ import annotations

import re
from typing import Final

from edgefarm.errors import InvalidName

GROUP: Final = "network.edgefarm.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

#: The label that puts a pod into a network; its value is the network's name.
LABEL_NETWORK: Final = "network.edgefarm.io"
PREFIX: Final = f"{GROUP}/"
#: On objects that the reconciler makes: the network they were made for.
LABEL_OF_NETWORK: Final = f"{PREFIX}name"
#: On the pods of leaf NATS servers: what they are, and the EdgeNetwork they were made for.
LABEL_TYPE: Final = f"{PREFIX}type"
TYPE_LEAF: Final = "leaf"
#: On what belongs to a server that the reconciler runs, beside LABEL_TYPE: which server.
TYPE_SERVER: Final = "server"
LABEL_SERVER: Final = f"{PREFIX}server"
LABEL_EDGE_NETWORK: Final = f"{PREFIX}edge-network"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "edgefarm-network"

ANNOTATION_INJECT: Final = f"{PREFIX}inject"
ANNOTATION_MODE: Final = f"{PREFIX}sidecar-mode"
ANNOTATION_IMAGE: Final = f"{PREFIX}sidecar-image"
ANNOTATION_PORT: Final = f"{PREFIX}sidecar-port"
ANNOTATION_CPU_REQUEST: Final = f"{PREFIX}sidecar-cpu-request"
ANNOTATION_CPU_LIMIT: Final = f"{PREFIX}sidecar-cpu-limit"
ANNOTATION_MEMORY_REQUEST: Final = f"{PREFIX}sidecar-memory-request"
ANNOTATION_MEMORY_LIMIT: Final = f"{PREFIX}sidecar-memory-limit"
ANNOTATION_POLICY: Final = f"{PREFIX}policy"
ANNOTATION_PERSIST: Final = f"{PREFIX}persist-credentials"
#: Whether applications in mode nats connect through the sidecar's relay, and where that listens.
ANNOTATION_NATS_RELAY: Final = f"{PREFIX}nats-relay"
ANNOTATION_NATS_PORT: Final = f"{PREFIX}nats-port"
ANNOTATION_DAPR_APP_ID: Final = f"{PREFIX}dapr-app-id"
ANNOTATION_DAPR_APP_PORT: Final = f"{PREFIX}dapr-app-port"
ANNOTATION_DAPR_APP_PROTOCOL: Final = f"{PREFIX}dapr-app-protocol"
ANNOTATION_DAPR_APP_MAX_CONCURRENCY: Final = f"{PREFIX}dapr-app-max-concurrency"
ANNOTATION_DAPR_CONFIG: Final = f"{PREFIX}dapr-config"
ANNOTATION_DAPR_API_LOGGING: Final = f"{PREFIX}dapr-enable-api-logging"
ANNOTATION_DAPR_LOG_LEVEL: Final = f"{PREFIX}dapr-log-level"
ANNOTATION_DAPR_MAX_BODY_SIZE: Final = f"{PREFIX}dapr-max-body-size"
ANNOTATION_DAPR_SHUTDOWN_SECONDS: Final = f"{PREFIX}dapr-graceful-shutdown-seconds"
#: Set by the webhook on a pod that it changed: JSON with version, network, mode and form of the sidecar.
ANNOTATION_STATUS: Final = f"{PREFIX}status"
#: On a DaemonSet that we made: a digest of what was desired when it was written last, which tells drift from updates.
ANNOTATION_DESIRED: Final = f"{PREFIX}desired"
#: On the StatefulSet of NATS: for which configuration its pods were started, where a reload would not have been enough.
ANNOTATION_STARTED_FOR: Final = f"{PREFIX}started-for"
#: On the same: how many servers there are to be, whatever somebody has scaled the StatefulSet to.
ANNOTATION_REPLICAS: Final = f"{PREFIX}replicas"
#: On the ConfigMap SERVERS_CA: the text of the configuration that was accepted last, which outlives the reconciler.
ANNOTATION_ACCEPTED: Final = f"{PREFIX}accepted-configuration"
#: Beside it: names of the servers that the reconciler runs and that were ready under it, joined by commas.
ANNOTATION_READY_SERVERS: Final = f"{PREFIX}ready-servers"
#: On a Policy: an RFC 3339 time; a key older than it is rotated (old credentials keep working for the overlap).
ANNOTATION_ROTATE_KEYS_AT: Final = f"{PREFIX}rotate-keys-at"
#: On a Policy: an RFC 3339 time; key versions older than it are dropped from the account at once.
ANNOTATION_REVOKE_KEYS_BEFORE: Final = f"{PREFIX}revoke-keys-before"
#: On a Stream: "true" lets a change of it remove messages that are stored.
ANNOTATION_ALLOW_DATA_LOSS: Final = f"{PREFIX}allow-data-loss"

#: Members of a JetStream stream's metadata by which we know our own: namespace/name and UID of its Stream object.
STREAM_OWNER: Final = f"{PREFIX}stream"
STREAM_OWNER_UID: Final = f"{PREFIX}stream-uid"

FINALIZER: Final = f"{PREFIX}cleanup"

CONTROLLER_NAMESPACE: Final = "network"
CONFIGMAP: Final = "network"
CONTROLLER_ROLE: Final = "networkcontroller"
ELECTION_LEASE: Final = "network-controller"
WEBHOOK_CONFIGURATION: Final = "edgefarm-network"
WEBHOOK_SERVICE: Final = "network-webhook"
WEBHOOK_SECRET: Final = "network-webhook-tls"
#: Holds the private keys of the webhook's certificate authorities: only the reconciler may read it.
WEBHOOK_CA_SECRET: Final = "network-webhook-ca"
#: The same for the authorities of the leafs' certificates, which serve all networks.
LEAF_CA_SECRET: Final = "network-leaf-ca"

#: The reconciler's own account, made by the chart; owner of the servers that it runs, so that they end with it.
CONTROLLER_SERVICE_ACCOUNT: Final = "network-controller"
#: ConfigMap with the authorities (`ca.crt`) by which pods and webhook verify Vault and NATS; written by the reconciler.
SERVERS_CA: Final = "network-ca"
#: The authority of the servers that the reconciler runs; only the reconciler may read it.
SERVERS_CA_SECRET: Final = "network-servers-ca"
#: OpenBao and NATS, where the reconciler runs them: StatefulSet, Service and ConfigMap have this name, and what belongs
#: to them begins with it.
VAULT_SERVER: Final = "network-vault"
NATS_SERVER: Final = "network-nats"
VAULT_UNSEAL_SECRET: Final = f"{VAULT_SERVER}-unseal"
VAULT_RECOVERY_SECRET: Final = f"{VAULT_SERVER}-recovery"
#: The role by which the reconciler sets up the OpenBao that it runs.
VAULT_SETUP_ROLE: Final = "networksetup"

SIDECAR_CONTAINER: Final = "network-sidecar"
#: Init container that gets the first credentials where there are no native sidecars.
INIT_CONTAINER: Final = "network-init"
#: Volumes that the webhook adds to a pod.
VOLUME_TOKEN: Final = "network-token"
VOLUME_CREDENTIALS: Final = "network-credentials"
VOLUME_COMPONENTS: Final = "network-components"
VOLUME_DAPR_CONFIG: Final = "network-dapr-config"
#: Name of the Dapr pubsub component; the same in every network, so that applications need not know theirs.
DAPR_COMPONENT: Final = "network"

#: The audience of service account tokens that are shown to Vault.
DEFAULT_AUDIENCE: Final = "edgefarm-network"
DEFAULT_AUTH_MOUNT: Final = "edgefarm-kubernetes"
DEFAULT_TRANSIT_MOUNT: Final = "edgefarm-transit"
DEFAULT_KV_MOUNT: Final = "edgefarm-kv"

#: Images of a leaf's containers, unless the configuration names others.
SIDECAR_IMAGE: Final = "ghcr.io/edgefarm/network-sidecar:latest"
NATS_IMAGE: Final = "docker.io/library/nats:2.15-alpine"
OPENBAO_IMAGE: Final = "docker.io/openbao/openbao:2.7.2"

SYSTEM_ACCOUNT: Final = "SYS"
OPERATOR_KEY: Final = "operator"
OPERATOR_SIGNING_KEYS: Final = ("operator-signing-1", "operator-signing-2")
SYSTEM_ACCOUNT_KEY: Final = "account.SYS"
#: Signing key of the SYS account for the reconciler's own user.
SYSTEM_CONTROLLER_KEY: Final = "controller.SYS"
#: Scoped signing key of the SYS account for the leafs' second connection: account JWTs, and nothing else.
SYSTEM_LEAF_KEY: Final = "leaf.SYS"
#: Account of the node agents and of the reconciler's requests to them. No network has a name with capital letters.
AGENTS_ACCOUNT: Final = "AGENTS"
AGENTS_ACCOUNT_KEY: Final = f"account.{AGENTS_ACCOUNT}"
#: Signing key of that account for the reconciler's own user.
AGENTS_CONTROLLER_KEY: Final = f"controller.{AGENTS_ACCOUNT}"
#: Scoped signing key of that account for all agents.
AGENTS_KEY: Final = f"agent.{AGENTS_ACCOUNT}"
#: What the names of the agents' Vault roles begin with. Vault folds role names to lower case, so it is the `_` that no
#: role of a network has before its first dot.
AGENT_ROLE_PREFIX: Final = "agents_."
#: KV folder of the agents' access documents.
AGENT_ACCESS_FOLDER: Final = f"access/{AGENTS_ACCOUNT}"
#: Audience of the token by which an agent proves to the reconciler on which node it runs.
AGENT_AUDIENCE: Final = "edgefarm-network-agent"
#: Service accounts of the agents, by the role of their devices in the mesh.
ROLE_EDGE: Final = "edge"
ROLE_GATEWAY: Final = "gateway"
AGENT_SERVICE_ACCOUNTS: Final = {ROLE_EDGE: "network-agent", ROLE_GATEWAY: "network-gateway"}
#: Who manages the mesh's interfaces on a host, as abbot knows it.
MESH_PROVIDER: Final = "edgefarm-network"
#: KV folder of the private keys of devices that cannot make their own.
MESH_KEYS_FOLDER: Final = "mesh"
#: JetStream domain of the hub.
MAIN_DOMAIN: Final = "main"
#: What the names of the transit keys begin with that come and go with networks; all others are the administrator's.
KEY_FAMILIES: Final = ("account", "agent", "controller", "leaf", "policy")
#: Those of them that a grant may sign with.
GRANT_KEY_FAMILIES: Final = ("agent", "leaf", "policy")
#: KV folder of all access documents.
ACCESS_FOLDER: Final = "access"
#: KV document with the operator's public facts (operator JWT, SYS account id and JWT, public signing keys).
OPERATOR_DOCUMENT: Final = "operator"

_LONGEST_LABEL: Final = 63
_LONGEST_SUBDOMAIN: Final = 253
_LONGEST_DOMAIN: Final = 128
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def check_label(name: str, what: str) -> str:
    """Return `name` when it is a DNS label, else raise InvalidName with a sentence that says what to write."""
    if not _LABEL.fullmatch(name):
        raise InvalidName(
            f"{what} {name!r} cannot be used: write 1 to 63 lower-case letters, digits or '-', "
            "beginning and ending with a letter or digit (no dots)"
        )
    return name


def account_key(network: str) -> str:
    """Transit key that is the identity of the network's NATS account."""
    return f"account.{check_label(network, 'network')}"


def policy_key(network: str, namespace: str, policy: str) -> str:
    """Transit key that is the scoped signing key of one Policy."""
    return ".".join(("policy", *_labels(network=network, namespace=namespace, policy=policy)))


def leaf_key(network: str, edge_network: str) -> str:
    """Transit key that is the scoped signing key of one EdgeNetwork's leafs."""
    return ".".join(("leaf", *_labels(network=network, edge_network=edge_network)))


def leaf_key_prefix(network: str) -> str:
    """What the names of all leaf keys of a network begin with."""
    return f"leaf.{check_label(network, 'network')}."


def controller_key(network: str) -> str:
    """Transit key that is the scoped signing key of the reconciler's own JetStream user in the network."""
    return f"controller.{check_label(network, 'network')}"


def policy_key_prefix(network: str) -> str:
    """What the names of all scoped keys of a network begin with."""
    return f"policy.{check_label(network, 'network')}."


def grant_role(network: str, namespace: str, service_account: str) -> str:
    """Vault role by which one service account gets the credentials of one network."""
    return ".".join(_labels(network=network, namespace=namespace, service_account=service_account))


def grant_role_prefix(network: str) -> str:
    """What the names of all roles of a network begin with."""
    return f"{check_label(network, 'network')}."


def vault_policy(role: str) -> str:
    """Vault policy of a grant. Its own prefix keeps our policies apart from others in a shared Vault."""
    return f"edgefarm.{role}"


def access_document(network: str, namespace: str, service_account: str) -> str:
    """KV path of what a sidecar of this service account must know about the network."""
    return "/".join(("access", *_labels(network=network, namespace=namespace, service_account=service_account)))


def access_document_prefix(network: str) -> str:
    """KV folder of all access documents of a network."""
    return f"access/{check_label(network, 'network')}"


def default_policy(network: str) -> str:
    """Name of the copies of a network's default policy in its workload namespaces."""
    return check_label(network, "network")


def consumer(namespace: str, policy: str) -> str:
    """Name of the only JetStream consumer that a Policy has on a stream of which it may see a part."""
    return f"{check_label(namespace, 'namespace')}_{check_label(policy, 'policy')}"


def leaf_workload(edge_network: str) -> str:
    """Name of an EdgeNetwork's DaemonSet and of the service account of its leafs."""
    return _shortened(f"leaf-{check_label(edge_network, 'edge network')}")


def leaf_service(network: str) -> str:
    """Name of the Service by which pods reach the leaf of their own node, and of its TLS Secret."""
    return _shortened(f"leaf-{check_label(network, 'network')}")


def leaf_hosts(network: str, namespace: str) -> tuple[str, ...]:
    """DNS names of that Service."""
    service = f"{leaf_service(network)}.{check_label(namespace, 'namespace')}.svc"
    return (service, f"{service}.cluster.local")


def leaf_data_folder(network: str) -> str:
    """Folder on an edge node's disk that holds what the network's leaf must keep over a reboot."""
    return f"/var/lib/edgefarm-network/{check_label(network, 'network')}"


def leaf_domain(network: str, node: str) -> str:
    """JetStream domain and server name of a network's leaf on a node: `<network>-<node>`, without dots.

    Different pairs give different names: dots become `_`, which no Kubernetes name contains, and a network with a `-`
    of its own is set off by `__`, which no node can bring. Names beyond 128 characters end in a digest instead.
    """
    domain = f"{leaf_domain_prefix(network)}{node.replace('.', '_')}"
    return domain if len(domain) <= _LONGEST_DOMAIN else f"{domain[: _LONGEST_DOMAIN - 18]}__{_digest(domain, 16)}"


def network_of_leaf(domain: str) -> str:
    """The network that a leaf's domain belongs to: what `leaf_domain` was given."""
    network, separator, _ = domain.partition("__")
    # Behind a long name without such a network there may be a digest, which is set off in the same way.
    return network if separator and "-" in network and len(network) <= _LONGEST_LABEL else domain.partition("-")[0]


def leaf_domain_prefix(network: str) -> str:
    """What the domains of all leafs of a network begin with. Others may, too: `plant-` and `plant-b__node`."""
    return f"{check_label(network, 'network')}{'__' if '-' in network else '-'}"


def leaf_user(network: str, domain: str) -> str:
    """Name of a leaf's NATS user: its domain without the prefix, which the rights of leafs add again."""
    return domain.removeprefix(leaf_domain_prefix(network))


def agent_role(service_account: str) -> str:
    """Vault role by which the agents of this service account get their NATS users."""
    return f"{AGENT_ROLE_PREFIX}{check_label(service_account, 'service account')}"


def agent_access_document(namespace: str, service_account: str) -> str:
    """KV path of what these agents must know."""
    return "/".join((AGENT_ACCESS_FOLDER, *_labels(namespace=namespace, service_account=service_account)))


def edge_device(role: str, node: str) -> str:
    """Name of the EdgeDevice of a node's agent: the node's own, for a gateway `gateway.<node>`."""
    return node if role == ROLE_EDGE else f"{role}.{node}"


def mesh_key_document(device: str) -> str:
    """KV path of a device's WireGuard key, where devices cannot make their own."""
    return f"{MESH_KEYS_FOLDER}/{device}"


def nack_key(network: str) -> str:
    """Transit key that is the scoped signing key of NACK's user in the network."""
    return f"{controller_key(network)}.nack"


def nack_account(network: str) -> str:
    """Name of NACK's Account object for a network, and of the Secret with the credentials in it."""
    return _shortened(f"nack-{check_label(network, 'network')}")


def nack_stream(namespace: str, stream: str, domain: str) -> str:
    """Name of NACK's Stream object for a Stream in a JetStream domain: `<namespace>.<stream>.<domain>`.

    Where the domain cannot be part of such a name, or would make it too long, a digest of it follows as a fourth part.
    """
    start = ".".join(_labels(namespace=namespace, stream=stream))
    if "_" not in domain and len(start) + len(domain) < _LONGEST_SUBDOMAIN:
        return f"{start}.{domain}"
    readable = domain.replace("_", "-")[: _LONGEST_SUBDOMAIN - len(start) - 18].strip("-")
    return f"{start}.{readable}.{_digest(domain, 16)}"


def webhook_hosts(namespace: str) -> tuple[str, ...]:
    """DNS names of the webhook's Service; the API server verifies the first one."""
    service = f"{WEBHOOK_SERVICE}.{check_label(namespace, 'namespace')}.svc"
    return (service, f"{service}.cluster.local")


def _shortened(name: str) -> str:
    """The name as a DNS label: a long one ends in a digest of the whole."""
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 9]}-{_digest(name, 8)}"


def _digest(text: str, length: int) -> str:
    from hashlib import sha256  # here, because every sidecar loads this module and few names are this long

    return sha256(text.encode()).hexdigest()[:length]


def _labels(**names: str) -> tuple[str, ...]:
    return tuple(check_label(name, what.replace("_", " ")) for what, name in names.items())


def server_peers(server: str) -> str:
    """The headless Service through which the replicas of a server that the reconciler runs find each other."""
    return f"{server}-peers"


def server_tls_secret(server: str) -> str:
    """The Secret with the certificate of such a server."""
    return f"{server}-tls"


def server_host(server: str, namespace: str) -> str:
    """DNS name of the Service of such a server."""
    return f"{server}.{check_label(namespace, 'namespace')}.svc"


def server_hosts(server: str, namespace: str) -> tuple[str, ...]:
    """All DNS names in its certificate: of the Service, and of each replica."""
    service, peers = server_host(server, namespace), f"*.{server_host(server_peers(server), namespace)}"
    return (service, f"{service}.cluster.local", peers, f"{peers}.cluster.local")


def server_replica(server: str, ordinal: int) -> str:
    """Name of a replica's pod, as its StatefulSet gives it."""
    return f"{server}-{ordinal}"


def server_replica_host(server: str, replica: str, namespace: str) -> str:
    """DNS name of one replica, by the name of its pod."""
    return f"{replica}.{server_host(server_peers(server), namespace)}"
