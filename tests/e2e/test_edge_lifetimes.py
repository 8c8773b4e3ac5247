"""Credentials on a node that is cut off: what their lifetime bounds and what not, and keys that changed meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

import pytest
import pytest_asyncio

from edgefarm import names
from localcluster.client import Json
from localcluster.demo.edge.plant import EDGE
from localcluster.demo.observer import EDGE_NETWORKS, POLICIES, eventually
from tests.e2e.edge import CATCH_UP, NODES, PATIENCE, Site, running_site

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

AWAY, HERE = NODES
#: Seconds: long enough for what is tried within it on a busy machine, short enough to wait for its end.
LIFETIME: Final = 60
#: Seconds before the end at which the last new connection is begun.
MARGIN: Final = 30


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    credentials = {"lifetime": f"{LIFETIME}s", "renewEvery": "4s"}
    async with running_site(tmp_path_factory.mktemp("site"), credentials) as running:
        yield running


async def test_keys_that_were_replaced_while_a_node_was_away_are_taken_up_by_itself(site: Site) -> None:
    leaf, station = await site.leaf_user(AWAY), await site.station_user(AWAY)
    await site.cut_off(AWAY)
    now = {"metadata": {"annotations": {names.ANNOTATION_REVOKE_KEYS_BEFORE: datetime.now(UTC).isoformat()}}}
    await site.plant.kube.patch(POLICIES, "station", now, "line")
    await site.plant.kube.patch(EDGE_NETWORKS, EDGE, now, names.CONTROLLER_NAMESPACE)
    for user, before in ((site.leaf_user, leaf), (site.station_user, station)):
        await eventually(
            "the node that is there has it", partial(_has_another_key, user, HERE, before), within=PATIENCE
        )
    await site.until_neighbours_hear(AWAY)  # nobody can tell the node that is away
    assert (await site.leaf_user(AWAY))["iss"] == leaf["iss"]
    assert (await site.station_user(AWAY))["iss"] == station["iss"]
    await site.plant.heal(AWAY)
    for user, before in ((site.leaf_user, leaf), (site.station_user, station)):
        await eventually("so has the other", partial(_has_another_key, user, AWAY, before), within=PATIENCE)
    await site.until_connected(*NODES)
    await site.until_at_leaf(AWAY)


async def test_a_node_works_for_the_whole_lifetime_then_its_pods_stop_and_the_return_ends_that(site: Site) -> None:
    await site.cut_off(AWAY)
    ends_at = await site.station_credentials_end_at(AWAY)
    station = await site.plant.station(AWAY)
    while time.time() < ends_at - MARGIN:
        await site.until_neighbours_hear(AWAY)
        await asyncio.sleep(1)  # all looking on costs, and there is nothing else to wait for
    await site.kill(station, "app")
    await eventually("it was started again", partial(_restarted, site, station), within=PATIENCE)
    await site.until_at_leaf(AWAY)  # overdue for long, a new connection is made with what there is
    site.stored[AWAY] = await site.plant.publish(AWAY, 100)
    assert time.time() < ends_at, "the machine was too busy for this lifetime"

    await eventually("the pod's connection ends", partial(_is_out, site), within=PATIENCE)
    assert time.time() >= ends_at
    ended = f"the credentials of this pod ended on {datetime.fromtimestamp(ends_at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    said = await site.station_says(AWAY)
    assert ended in said
    assert "Vault at" in said  # what it waits for
    await eventually("the leaf's end, too", partial(_leaf_has_ended, site), within=PATIENCE)
    assert (await site.leaf_user(AWAY))["exp"] <= time.time()
    assert await site.held_at(AWAY) == 100  # the leaf itself goes on, and so does all that it stores

    await site.plant.heal(AWAY)
    await site.until_connected(AWAY)
    await site.until_at_leaf(AWAY)
    assert (await site.leaf_user(AWAY))["exp"] > time.time()
    await site.collect(within=CATCH_UP)


async def _has_another_key(user: Callable[[str], Awaitable[Json]], node: str, before: Json) -> bool:
    return bool((await user(node))["iss"] != before["iss"])


async def _restarted(site: Site, pod: Json) -> bool:
    return await site.restarts(pod, "app") > 0


async def _is_out(site: Site) -> bool:
    return not (await site.plant.ask_station(AWAY))["connected"]


async def _leaf_has_ended(site: Site) -> bool:
    return "the uplink's credentials ended on " in await site.leaf_says(AWAY)
