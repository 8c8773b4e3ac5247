"""Outages with more than one thing wrong: two nodes cut off, the hub killed while it catches up, no reconciler."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import pytest
import pytest_asyncio

from localcluster.demo.edge.outage import LOST, REVOCATION
from localcluster.demo.observer import POLICIES, eventually
from tests.e2e.edge import CATCH_UP, NODES, Site, running_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

READINGS: Final = 10_000
ATTEMPTS: Final = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


async def test_two_nodes_that_are_cut_off_at_once_go_on_and_catch_up(site: Site) -> None:
    await site.cut_off(*NODES)
    for node in NODES:
        await site.until_neighbours_hear(node)
        site.stored[node] = await site.plant.publish(node, 1000)
        assert await site.held_at(node) == site.stored[node]
    assert await site.held_by_hub() == 0
    await asyncio.gather(*map(site.plant.heal, NODES))
    await site.collect(within=CATCH_UP)
    await site.until_connected(*NODES)


async def test_a_hub_that_is_killed_while_it_catches_up_gets_everything_once(site: Site) -> None:
    node = NODES[1]
    for _ in range(ATTEMPTS):
        await site.cut_off(node)
        site.stored[node] = await site.plant.publish(node, READINGS)
        before, all_of_it = await site.held_by_hub(), sum(site.stored.values())
        await site.plant.heal(node)
        held = await eventually("the hub catches up", partial(_more_than, site, before), within=CATCH_UP)
        if held < all_of_it:  # else it had everything between two looks
            break
    await site.kill_hub()
    assert held < all_of_it, f"{ATTEMPTS} times the hub had everything before it was killed"
    await site.collect(within=CATCH_UP)
    await site.until_connected(*NODES)


async def test_an_outage_needs_no_reconciler_and_a_policy_deleted_meanwhile_dies_when_it_is_back(site: Site) -> None:
    await site.admit_visitor()
    await site.scale_reconciler(0)
    await site.cut_off(LOST)
    site.stored[LOST] = await site.plant.publish(LOST, READINGS)
    await site.a_reboot_does_no_harm()
    await site.plant.kube.delete(POLICIES, "visitor", "line")
    await site.plant.heal(LOST)
    await site.until_connected(LOST)
    await site.collect(within=CATCH_UP)
    await site.until_visitor_is_at_leaf()  # nobody has told the leaf
    await site.scale_reconciler(1)
    returned = time.monotonic()
    await site.until_visitor_is_refused()
    assert time.monotonic() - returned < REVOCATION


async def _more_than(site: Site, count: int) -> int | None:
    held = await site.held_by_hub()
    return held if held > count else None
