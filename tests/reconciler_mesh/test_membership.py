"""Devices join, are told who their peers are, return, and leave."""

from __future__ import annotations

from edgefarm import names
from reconciler.ports import NODE
from tests.reconciler_mesh.hosts import Host
from tests.reconciler_mesh.world import MeshWorld

MINUTE = 60


async def join_gateway(world: MeshWorld, name: str = "cluster-1") -> Host:
    host = await world.join(name, names.ROLE_GATEWAY)
    await world.settle()
    return host


async def test_the_first_device_that_joins_has_an_address_and_a_tunnel(world: MeshWorld) -> None:
    gateway = await join_gateway(world)
    edge = await world.join("edge-1")
    await world.settle(MINUTE)
    status = await world.status(edge)
    assert (status["role"], status["node"], status["agentConnected"]) == ("edge", "edge-1", True)
    assert status["publicKey"] == edge.key
    assert edge.mesh_addresses == [f"{status['mesh']['ipv4']}/16"] or edge.mesh_addresses == [
        f"{status['mesh']['ipv4']}/32"
    ]
    assert set(edge.peers) == {gateway.key}
    assert set(gateway.peers) == {edge.key}
    assert (await world.condition(edge))[0] == "True"
    assert (await world.condition(gateway))[0] == "True"
    assert status["peers"][0]["name"] == "gateway.cluster-1"
    assert status["peers"][0]["path"] == "relay"
    assert status["counts"] == {"relay": 1, "direct": 0, "none": 0}


async def test_devices_belong_to_their_node_and_say_so(world: MeshWorld) -> None:
    edge = await world.join("edge-1")
    await world.settle()
    (owner,) = (await world.device(edge))["metadata"]["ownerReferences"]
    node = await world.systems.kube.get(NODE, None, "edge-1")
    assert node is not None
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", "edge-1", node["metadata"]["uid"])


async def test_each_of_five_devices_has_an_address_of_its_own_and_pairs_find_each_other(world: MeshWorld) -> None:
    gateway = await join_gateway(world)
    edges = []
    for number in range(1, 6):
        edges.append(await world.join(f"edge-{number}"))
        await world.settle()
    await world.settle(2 * MINUTE)
    addresses = {(await world.status(host))["mesh"]["ipv4"] for host in (gateway, *edges)}
    assert len(addresses) == 6
    keys = {host.key for host in edges}
    assert set(gateway.peers) == keys
    for edge in edges:
        assert set(edge.peers) == keys - {edge.key} | {gateway.key}
        assert (await world.status(edge))["counts"] == {"relay": 1, "direct": 4, "none": 0}


async def test_a_settled_mesh_is_only_looked_at(world: MeshWorld) -> None:
    hosts = [await join_gateway(world), *[await world.join(f"edge-{number}") for number in range(5)]]
    await world.settle(3 * MINUTE)
    world.hosts.forget_requests()
    before = world.writes
    world.manager.enqueue_all()
    await world.settle(0)
    assert [host.ensures for host in hosts] == [[]] * 6
    assert world.writes == before


async def test_a_new_reconciler_asks_the_hosts_and_changes_nothing(world: MeshWorld) -> None:
    hosts = [await join_gateway(world), *[await world.join(f"edge-{number}") for number in range(5)]]
    await world.settle(3 * MINUTE)
    world.hosts.forget_requests()
    before = world.writes
    await world.restart()
    await world.settle()
    assert [host.ensures for host in hosts] == [[]] * 6
    assert all(host.queries for host in hosts)
    assert world.writes == before


async def test_a_new_reconciler_puts_right_what_changed_meanwhile(world: MeshWorld) -> None:
    gateway, edge = await join_gateway(world), await world.join("edge-1")
    await world.settle(MINUTE)
    await world.stop()
    edge.reinstall()
    gateway.interfaces.clear()
    await world.start()
    await world.settle(MINUTE)
    assert set(edge.peers) == {gateway.key}
    assert set(gateway.peers) == {edge.key}
    assert (await world.condition(edge))[0] == "True"


async def test_an_agent_that_connects_again_is_told_everything(world: MeshWorld) -> None:
    gateway, edge = await join_gateway(world), await world.join("edge-1")
    await world.settle(MINUTE)
    world.hosts.disconnect(edge)
    await world.settle()
    assert (await world.condition(edge, "AgentConnected"))[0] == "False"
    edge.forget_requests()
    world.hosts.connect(edge)
    await world.settle()
    (request,) = edge.ensures
    (interface,) = request.expected
    assert not interface.wireguard.partial
    assert {peer.public_key for peer in interface.wireguard.peers} == {gateway.key}
    assert (await world.condition(edge))[0] == "True"


async def test_a_join_changes_one_peer_at_the_gateway(world: MeshWorld) -> None:
    world.configure(direct=type(world.configuration.mesh.direct)(enabled=False, max_peers=16))
    gateway = await join_gateway(world)
    others = [await world.join(f"edge-{number}") for number in range(4)]
    await world.settle(2 * MINUTE)
    world.hosts.forget_requests()
    edge = await world.join("edge-new")
    await world.settle()
    (request,) = gateway.ensures
    (interface,) = request.expected
    assert interface.wireguard.partial
    assert [peer.public_key for peer in interface.wireguard.peers] == [edge.key]
    assert [host.ensures for host in others] == [[]] * 4


async def test_a_device_that_is_deleted_leaves_everybody_s_peers_and_its_address_is_free(world: MeshWorld) -> None:
    gateway = await join_gateway(world)
    edges = [await world.join(f"edge-{number}") for number in range(3)]
    await world.settle(2 * MINUTE)
    address, key = (await world.status(edges[0]))["mesh"]["ipv4"], edges[0].key
    await world.delete(edges[0])
    await world.settle()
    assert await world.find(edges[0]) is None
    assert edges[0].interfaces == {}
    for host in (gateway, *edges[1:]):
        assert key not in host.peers
    newcomer = await world.join("edge-new")
    await world.settle(MINUTE)
    assert (await world.status(newcomer))["mesh"]["ipv4"] == address


async def test_only_an_agent_that_was_started_anew_makes_its_device_again(world: MeshWorld) -> None:
    edge = await world.join("edge-1")
    await world.settle()
    await world.delete(edge)
    await world.settle(MINUTE)
    assert await world.find(edge) is None
    world.hosts.connect(edge)
    await world.settle(MINUTE)
    assert await world.find(edge) is None
    world.hosts.connect(edge, new=True)
    await world.settle(MINUTE)
    assert await world.find(edge) is not None


async def test_a_device_whose_network_is_disabled_leaves_and_keeps_its_object(world: MeshWorld) -> None:
    gateway, edge = await join_gateway(world), await world.join("edge-1")
    await world.settle(MINUTE)
    await world.edit(edge, spec={"network": {"enabled": False}})
    await world.settle()
    assert (edge.interfaces, gateway.peers) == ({}, {})
    assert (await world.condition(edge))[:2] == ("False", "Disabled")
    assert "mesh" not in await world.status(edge)
    await world.edit(edge, spec={"network": {"enabled": True}})
    await world.settle(MINUTE)
    assert set(gateway.peers) == {edge.key}
    assert (await world.condition(edge))[0] == "True"


async def test_a_device_that_was_deleted_while_it_was_away_goes_at_once(world: MeshWorld) -> None:
    gateway, edge = await join_gateway(world), await world.join("edge-1")
    await world.settle(MINUTE)
    world.hosts.disconnect(edge)
    await world.delete(edge)
    await world.settle()
    assert await world.find(edge) is None
    assert gateway.peers == {}


async def test_a_gateway_that_was_away_while_a_device_was_deleted_forgets_it_on_its_return(world: MeshWorld) -> None:
    gateway, edge = await join_gateway(world), await world.join("edge-1")
    await world.settle(MINUTE)
    world.hosts.disconnect(gateway)
    await world.delete(edge)
    await world.settle()
    assert await world.find(edge) is None
    assert len(gateway.peers) == 1
    world.hosts.connect(gateway)
    await world.settle()
    assert gateway.peers == {}
