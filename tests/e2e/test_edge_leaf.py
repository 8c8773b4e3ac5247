"""A leaf that is killed while its node publishes, and one that starts while Vault is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import pytest
import pytest_asyncio

from edgefarm import names
from localcluster.demo.observer import eventually
from tests.e2e.edge import CATCH_UP, NODES, PATIENCE, Site, running_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

READINGS: Final = 10_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with running_site(tmp_path_factory.mktemp("site")) as running:
        yield running


async def test_a_leaf_that_is_killed_during_writes_loses_and_doubles_nothing(site: Site) -> None:
    node = NODES[0]
    leaf = (await site.plant.leafs())[node]
    writes = asyncio.create_task(site.plant.publish(node, READINGS))
    await eventually("writes are under way", partial(_holds, site, node, READINGS // 10), within=PATIENCE)
    await site.kill(leaf, "nats")
    assert not writes.done(), "all was written before the kill"
    await eventually("the leaf was started again", partial(_restarted, site, node, "nats"), within=PATIENCE)
    site.stored[node] = await writes  # each one acknowledged, those after the kill, too
    assert site.stored[node] == READINGS
    assert await site.held_at(node) == READINGS
    await site.collect(within=CATCH_UP)


async def test_a_leaf_starts_without_vault_on_what_it_has_and_renews_when_vault_is_back(site: Site) -> None:
    node = NODES[1]
    leaf = (await site.plant.leafs())[node]
    port = await site.kill_vault()
    for container in (names.SIDECAR_CONTAINER, "nats"):
        await site.kill(leaf, container)
        await eventually(f"{container} was started again", partial(_restarted, site, node, container), within=PATIENCE)
    await site.until_connected(node)  # the hub, too, accepts what the leaf has
    await site.until_at_leaf(node)
    site.stored[node] = await site.plant.publish(node, 100)
    await eventually("the sidecar says what is missing", partial(_says_vault_is_away, site, node), within=PATIENCE)
    before = await site.leaf_user(node)
    site.plant.platform.start_openbao(port)
    await eventually("the leaf has renewed", partial(_renewed, site, node, before["jti"]), within=PATIENCE)
    await site.until_connected(node)
    await site.collect(within=CATCH_UP)


async def _holds(site: Site, node: str, least: int) -> bool:
    return await site.held_at(node) >= least


async def _restarted(site: Site, node: str, container: str) -> bool:
    return await site.restarts((await site.plant.leafs())[node], container) > 0


async def _says_vault_is_away(site: Site, node: str) -> bool:
    # /readyz says it, too, once the renewal is a minute late: tests/sidecar_leaf/test_offline.py moves the time.
    said = await site.leaf_logs(node)
    return f"Vault at {site.plant.platform.for_pods(site.plant.platform.bao.address)} cannot be reached" in said


async def _renewed(site: Site, node: str, jti: str) -> bool:
    return bool((await site.leaf_user(node))["jti"] != jti)
