"""A pass that died while an EdgeNetwork came or went: the next one brings everything to its place."""

from __future__ import annotations

import itertools
from typing import Any

from edgefarm import names
from reconciler.ports import EDGE_NETWORK, NETWORK, SECRET, SERVICE, Object
from tests.reconciler.conftest import Site

NAMESPACE = names.CONTROLLER_NAMESPACE


async def make_edge(site: Site, network: str) -> None:
    body: Object = {
        "apiVersion": names.API_VERSION,
        "kind": "EdgeNetwork",
        "metadata": {"name": f"plant-{network}", "namespace": NAMESPACE},
        "spec": {"network": network},
    }
    await site.reconciler.kube.create(EDGE_NETWORK, body)


def leaf_grant(network: str) -> tuple[str, str, str]:
    """Role, document and key of the leafs."""
    edge = f"plant-{network}"
    account = names.leaf_workload(edge)
    return (
        names.grant_role(network, NAMESPACE, account),
        names.access_document(network, NAMESPACE, account),
        names.leaf_key(network, edge),
    )


async def test_killed_while_an_edge_network_comes_everything_is_there_in_the_end(site: Site) -> None:
    for call in itertools.count(1):
        network = f"{site.network}-{call}"
        await site.make_network(network, [])
        await make_edge(site, network)
        killed = await site.reconciler.killed_at(call, network)
        await site.reconciler.converge()
        held: dict[str, Any] = site.world.held(network)
        role, document, key = leaf_grant(network)
        assert list(held["roles"]) == [role]
        assert list(held["policies"]) == [names.vault_policy(role)]
        assert held["documents"] == [document]
        assert held["keys"][key] == [1]
        service = names.leaf_service(network)
        assert await site.get(SERVICE, service, NAMESPACE) is not None
        assert await site.get(SECRET, service, NAMESPACE) is not None
        assert (await site.condition(NETWORK, network, "Ready"))[0] == "True"
        if not killed:
            assert call > 20
            return


async def test_killed_while_an_edge_network_goes_nothing_is_left_over(site: Site) -> None:
    for call in itertools.count(1):
        network = f"{site.network}-{call}"
        await site.make_network(network, [])
        await make_edge(site, network)
        await site.reconciler.converge()
        await site.delete(EDGE_NETWORK, f"plant-{network}", NAMESPACE)
        killed = await site.reconciler.killed_at(call, network)
        await site.reconciler.converge()
        held: dict[str, Any] = site.world.held(network)
        assert (held["roles"], held["policies"], held["documents"]) == ({}, {}, [])
        assert list(held["keys"]) == [names.account_key(network), names.controller_key(network)]
        service = names.leaf_service(network)
        assert await site.get(SERVICE, service, NAMESPACE) is None
        assert await site.get(SECRET, service, NAMESPACE) is None
        if not killed:
            assert call > 15
            return


async def test_killed_while_a_network_with_leafs_goes_nothing_is_left_over(site: Site) -> None:
    for call in itertools.count(1):
        network = f"{site.network}-{call}"
        await site.make_network(network, [], limits={"filestorage": "1M"})
        await make_edge(site, network)
        await site.reconciler.converge()
        await site.delete(NETWORK, network)
        killed = await site.reconciler.killed_at(call, network)
        await site.reconciler.converge()
        assert await site.get(NETWORK, network) is None
        assert not any(site.world.held(network).values())
        await site.delete(EDGE_NETWORK, f"plant-{network}", NAMESPACE)
        if not killed:
            assert call > 20
            return
