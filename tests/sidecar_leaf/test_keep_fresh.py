"""Renewal and rotation: what the hub wants is taken up by itself, and clients of the leaf notice nothing of it."""

from __future__ import annotations

from tests.natskit import eventually
from tests.sidecar_leaf.conftest import MakePod
from tests.sidecar_leaf.world import World


async def test_a_renewal_writes_files_and_drops_nobody(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod(await world.edge_network(renewEverySeconds=1))).up()
    started = pod.monitor("varz")["config_load_time"]
    async with await pod.connect(world.user()) as application:
        for _ in range(3):
            await pod.until_renewed(pod.token())
        await application.client.publish("live.x", b"")
        await application.settle()
        assert not application.closed.is_set()
        assert application.errors == []
    assert pod.connected()
    assert pod.monitor("varz")["config_load_time"] == started, "not even a reload"
    assert pod.metric("renewals_total") >= 3


async def test_a_key_rotated_while_the_leaf_is_connected_is_taken_up(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    before = pod.token()
    async with await pod.connect(world.user()) as application:
        await world.rotate(edge)
        await pod.until_renewed(before)
        await pod.until_connected(10)
        await application.settle()
        assert not application.closed.is_set()


async def test_a_key_rotated_while_the_leaf_was_away_is_taken_up_when_it_is_back(
    world: World, make_pod: MakePod
) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    before = pod.token()
    async with await pod.connect(world.user()) as application:
        world.cut()
        await eventually(lambda: not pod.connected(), "cut")
        await world.rotate(edge)
        await world.mend()
        await pod.until_renewed(before, 30)
        await pod.until_connected(30)
        await application.settle()
        assert not application.closed.is_set()


async def test_credentials_that_only_the_hub_refuses_are_renewed_at_once(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge, EDGEFARM_REFRESH_SECONDS="3600")).up()
    before = pod.token()
    await world.rotate(edge)
    # Nothing but the missing connection tells: the document would be read again in an hour.
    await pod.until_renewed(before, 30)
    await pod.until_connected(20)
    assert "getting new credentials" in pod.log()


async def test_a_hub_that_cannot_be_reached_is_no_reason_to_renew(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod(EDGEFARM_REFRESH_SECONDS="3600")).up()
    await eventually(lambda: pod.metric("renewals_total") == 1, "the first one")
    world.to_hub.cut()
    await eventually(lambda: not pod.connected(), "cut")
    looks = pod.log().count("getting new credentials")
    line = 'edgefarm_sidecar_leaf_uplink{account="network"} 0'
    await eventually(lambda: line in pod.get("/metrics").body, "seen")
    assert pod.log().count("getting new credentials") == looks == 0
    await world.to_hub.mend()
    await pod.until_connected()
    assert pod.metric("renewals_total") == 1


async def test_a_leaf_whose_edge_network_is_gone_is_cut_off_and_goes_on_serving_its_node(
    world: World, make_pod: MakePod
) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    async with await pod.connect(world.user()) as application:
        await world.revoke(edge)
        await eventually(
            lambda: not any(leaf["account"] == pod.account for leaf in pod.monitor("leafz").get("leafs") or []),
            "cut off in the network",
        )
        await eventually(lambda: "no EdgeNetwork of network foo" in pod.log(), "said in the log", 20)
        await application.settle()
        assert not application.closed.is_set()
    assert pod.get("/readyz").status == 200
