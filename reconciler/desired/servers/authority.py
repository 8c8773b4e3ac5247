"""Decides what the authority and the certificates of the servers are, and what ConfigMap SERVERS_CA says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from edgefarm import names
from reconciler.certs import CertificateSettings
from reconciler.configuration import Configuration
from reconciler.desired import leaf_service
from reconciler.ports import CONFIGMAP, SECRET, Object
from reconciler.server_configuration import ServerDeployment

#: Pods are told the authorities when they start, so that the next one must be known for as long as a pod may live
#: before it is used. Servers show their certificates to each other, too.
CERTIFICATES: Final = CertificateSettings(
    authority_lifetime=timedelta(days=3650),
    server_lifetime=timedelta(days=365),
    spread=timedelta(days=365),
    authority_name="edgefarm-network servers",
    client=True,
)
LABELS: Final = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_TYPE: names.TYPE_SERVER}
#: Key of ConfigMap SERVERS_CA.
CA_KEY: Final = "ca.crt"


def certificate_names(
    server: str, namespace: str, deployment: ServerDeployment, service: Mapping[str, object]
) -> tuple[str, ...]:
    """Names and addresses in a server's certificate: of the Service (as observed), the replicas, and those given."""
    every = (*names.server_hosts(server, namespace), *leaf_service.addresses(service), *deployment.hosts)
    return tuple(dict.fromkeys(every))


def secret(name: str, namespace: str, data: Mapping[str, str], owners: Sequence[Object]) -> Object:
    """A Secret of the servers, of type kubernetes.io/tls where it holds a certificate."""
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": dict(LABELS),
            **({"ownerReferences": list(owners)} if owners else {}),
        },
        "type": "kubernetes.io/tls" if "tls.crt" in data else "Opaque",
        "data": dict(data),
    }


def ca_configmap(
    configuration: Configuration, namespace: str, memory: Mapping[str, str], owners: Sequence[Object], known: str = ""
) -> Object:
    """ConfigMap SERVERS_CA: by what pods verify the servers (`configuration` as in force), and what the next process
    has to know (`memory`, as annotations).

    Without authorities it has no CA_KEY: a pod that mounts the key waits for it, and would not for an empty one.
    `known`: what it says already and goes on saying, where the authorities of our own servers are not known yet.
    """
    given = (configuration.vault.server.ca_pem, configuration.nats.ca_bundle)
    bundles = dict.fromkeys(bundle.strip() for bundle in given if bundle)
    text = known or "".join(f"{bundle}\n" for bundle in bundles)
    return {
        "apiVersion": CONFIGMAP.api_version,
        "kind": CONFIGMAP.kind,
        "metadata": {
            "name": names.SERVERS_CA,
            "namespace": namespace,
            "labels": dict(LABELS),
            **({"annotations": dict(memory)} if memory else {}),
            "ownerReferences": list(owners),
        },
        "data": {CA_KEY: text} if text else {},
    }
