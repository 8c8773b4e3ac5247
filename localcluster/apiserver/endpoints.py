"""Finds a ready address behind a port of a Service, in its Endpoints or EndpointSlices."""

from __future__ import annotations

from localcluster.apiserver.store import Store


def ready_endpoint(store: Store, namespace: str, service: str, port_name: str) -> tuple[str, int] | None:
    """Address and port of one ready endpoint of the port with this name; None when there is none."""
    endpoints = store.get(("", "endpoints"), namespace, service)
    for subset in (endpoints.content.get("subsets") or ()) if endpoints else ():
        for address in subset.get("addresses") or ():
            for offered in subset.get("ports") or ():
                if offered.get("name", "") == port_name:
                    return address["ip"], offered["port"]
    for piece in store.select(("discovery.k8s.io", "endpointslices"), namespace):
        labels = piece.content["metadata"].get("labels") or {}
        if labels.get("kubernetes.io/service-name") != service:
            continue
        for endpoint in piece.content.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready", True):
                for offered in piece.content.get("ports") or ():
                    if (offered.get("name") or "") == port_name:
                        return endpoint["addresses"][0], offered["port"]
    return None
