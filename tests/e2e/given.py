"""Platforms for tests; on the cluster of EDGEFARM_TEST_KUBECONFIG only where that can be, and removed afterwards."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from edgefarm import names
from edgefarm.errors import KubernetesRefused
from localcluster.client import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, NODES, Client, Resource, is_gone
from localcluster.connection import Connection
from localcluster.demo.observer import NETWORKS
from localcluster.kubernetes import KUBECONFIG_VARIABLE
from localcluster.platform import Platform, PlatformOptions

_LEASES: Final = Resource("coordination.k8s.io/v1", "leases")
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_PLURALS: Final = ("networks", "policies", "edgedevices", "edgenetworks", "streams")
#: What the platform's chart makes outside of namespaces.
_INSTALLED: Final = (
    (Resource("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations"), (names.WEBHOOK_CONFIGURATION,)),
    (Resource(_RBAC, "clusterrolebindings"), ("network-controller", "vault-reviewer")),
    (Resource(_RBAC, "clusterroles"), ("network-controller",)),
    (CUSTOM_RESOURCE_DEFINITIONS, tuple(f"{plural}.{names.GROUP}" for plural in _PLURALS)),
)


@dataclass(frozen=True)
class GivenCluster:
    """A bare API server of somebody else's, with the namespaces that it had before."""

    kubeconfig: Path
    namespaces: frozenset[str]

    @classmethod
    async def take(cls, kubeconfig: Path) -> GivenCluster:
        """Skip the tests, with the reason, where the platform's controllers and nodes would not be alone."""
        host = Connection.from_kubeconfig(kubeconfig).host
        if not _is_this_machine(host):
            _skip(f"runs on {host}, and could not ask the webhook and the nodes, which listen on loopback addresses")
        async with Client.from_kubeconfig(kubeconfig) as kube:
            nodes, _ = await kube.list(NODES)
            manager = await kube.find(_LEASES, "kube-controller-manager", "kube-system")
            if nodes or manager is not None:
                _skip("has nodes or a controller manager of its own; these tests bring both")
            present, _ = await kube.list(NAMESPACES)
        namespaces = frozenset(namespace["metadata"]["name"] for namespace in present)
        if names.CONTROLLER_NAMESPACE in namespaces:
            pytest.fail(
                f"the cluster of {KUBECONFIG_VARIABLE} has the namespace {names.CONTROLLER_NAMESPACE}: it is in use "
                "by another run (run these tests one after the other, with -n0), or left from one that was killed"
            )
        return cls(kubeconfig, namespaces)

    async def remove_tenants(self) -> None:
        """While the platform runs: Networks first, whose finalizers the reconciler takes away, then all namespaces."""
        async with Client.from_kubeconfig(self.kubeconfig) as kube:
            networks, _ = await kube.list(NETWORKS)
            for network in networks:
                await kube.delete(NETWORKS, network["metadata"]["name"], names.CONTROLLER_NAMESPACE)
            for network in networks:
                name = network["metadata"]["name"]
                await kube.wait_for(NETWORKS, name, names.CONTROLLER_NAMESPACE, until=is_gone, timeout=60)
            present, _ = await kube.list(NAMESPACES)
            added = [obj["metadata"]["name"] for obj in present if obj["metadata"]["name"] not in self.namespaces]
            for name in sorted(added, key=lambda name: name == names.CONTROLLER_NAMESPACE):
                await kube.delete(NAMESPACES, name)
                await kube.wait_for(NAMESPACES, name, until=is_gone, timeout=60)

    async def remove_installation(self) -> None:
        """When nothing of the platform runs any more: what is in no namespace."""
        async with Client.from_kubeconfig(self.kubeconfig) as kube:
            for resource, installed in _INSTALLED:
                for name in installed:
                    await kube.delete(resource, name)
            for node in (await kube.list(NODES))[0]:  # there was none before
                with contextlib.suppress(KubernetesRefused):
                    await kube.delete(NODES, node["metadata"]["name"])


@asynccontextmanager
async def installed(folder: Path, options: PlatformOptions) -> AsyncIterator[Platform]:
    """A running platform on an API server of its own, or on the given cluster, from which it is removed afterwards."""
    async with AsyncExitStack() as stack:
        given = None
        if kubeconfig := os.environ.get(KUBECONFIG_VARIABLE):
            given = await GivenCluster.take(Path(kubeconfig))
            stack.push_async_callback(given.remove_installation)
        running = await stack.enter_async_context(Platform(folder, options))
        await running.start()
        yield running
        if given is not None:
            await given.remove_tenants()


def _skip(why: str) -> None:
    pytest.skip(f"the cluster of {KUBECONFIG_VARIABLE} {why}")


def _is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
