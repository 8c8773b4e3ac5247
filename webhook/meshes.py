"""Where the sidecar stands among the containers of a service mesh that is in the pod already.

A mesh's proxy that is a native sidecar comes before ours: with the mesh's CNI plugin the pod's traffic is redirected
to it from the first moment, so that our sidecar could not reach Vault before it runs. A proxy that is an ordinary
container starts after all init containers: then ours comes first, before the mesh's init container redirects anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgefarm import names
from webhook.pod import Container

_OF_MESHES: Final = frozenset(
    {
        "consul-connect-inject-init",
        "consul-dataplane",
        "istio-init",
        "istio-proxy",
        "istio-validation",
        "kuma-init",
        "kuma-sidecar",
        "kuma-validation",
        "linkerd-init",
        "linkerd-network-validator",
        "linkerd-proxy",
    }
)


def place(containers: Sequence[Container]) -> int:
    """How many of these init containers come before ours: the mesh's own, up to its last native sidecar."""
    position = 0
    for index, container in enumerate(containers):
        if container["name"] not in _OF_MESHES:
            break
        if container.get("restartPolicy") == "Always":
            position = index + 1
    return position


def move(containers: Sequence[Container]) -> tuple[int, int] | None:
    """From where to where our native sidecar moves because a mesh came after it, or None where it is right."""
    for index, container in enumerate(containers):
        if container["name"] == names.SIDECAR_CONTAINER:
            behind = place(containers[index + 1 :])
            return (index, index + behind) if behind else None
    return None
