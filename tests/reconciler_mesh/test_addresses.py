"""Addresses: claimed in the status, never one for two, whatever happens at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_address, ip_network

from edgefarm import names
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import unpack_request
from reconciler.mesh_configuration import DirectConfiguration
from reconciler.ports import EDGE_DEVICE
from tests.reconciler_mesh.hosts import Host
from tests.reconciler_mesh.world import MeshWorld

MINUTE = 60


async def ipv4(world: MeshWorld, host: Host) -> str | None:
    return ((await world.status(host)).get("mesh") or {}).get("ipv4")


async def join_all(world: MeshWorld, count: int) -> list[Host]:
    hosts = [await world.join("cluster-1", names.ROLE_GATEWAY)]
    hosts += [await world.join(f"edge-{number}") for number in range(count)]
    await world.settle(MINUTE)
    return hosts


async def claim(world: MeshWorld, host: Host, address: str) -> None:
    """Write an address into a status, as another leader would have."""
    patch = {"status": {"mesh": {"ipv4": address}}}
    await world.systems.kube.patch(EDGE_DEVICE, world.systems.namespace, host.device, patch, subresource="status")


async def test_a_fixed_address_is_used_and_one_that_another_device_has_is_refused(world: MeshWorld) -> None:
    gateway, edge, other = await join_all(world, 2)
    await world.edit(edge, spec={"network": {"mesh": {"ipv4Addr": "10.201.9.9"}}})
    await world.settle(MINUTE)
    assert await ipv4(world, edge) == "10.201.9.9"
    assert "10.201.9.9/32" in gateway.peers[edge.key].allowed_ips
    had = await ipv4(world, other)
    await world.edit(other, spec={"network": {"mesh": {"ipv4Addr": "10.201.9.9"}}})
    await world.settle(MINUTE)
    assert (await world.condition(other, "Accepted"))[:2] == ("False", "AddressTaken")
    assert await ipv4(world, other) == had
    await world.delete(edge)
    await world.settle(MINUTE)
    assert await ipv4(world, other) == "10.201.9.9"
    assert (await world.condition(other))[0] == "True"


async def test_a_full_block_is_said_and_a_larger_one_helps(world: MeshWorld) -> None:
    world.configure(ipv4_block=ip_network("10.201.0.0/29"))
    hosts = await join_all(world, 6)
    without = [host for host in hosts if await ipv4(world, host) is None]
    assert len(without) == 2
    for host in without:
        assert (await world.condition(host, "Accepted"))[:2] == ("False", "BlockExhausted")
        assert host.interfaces == {}
    world.configure(ipv4_block=ip_network("10.201.0.0/24"))
    await world.settle(MINUTE)
    assert len({await ipv4(world, host) for host in hosts} - {None}) == 7


async def test_another_block_gives_everybody_another_address(world: MeshWorld) -> None:
    gateway, edge, _ = await join_all(world, 2)
    block = ip_network("10.202.0.0/16")
    world.configure(ipv4_block=block)
    await world.settle(2 * MINUTE)
    address = await ipv4(world, edge)
    assert address is not None
    assert ip_address(address) in block
    assert edge.mesh_addresses == [f"{address}/32"]
    assert f"{address}/32" in gateway.peers[edge.key].allowed_ips
    assert (await world.condition(edge))[0] == "True"


async def test_of_two_devices_with_one_address_after_a_change_of_leader_the_younger_gets_another(
    world: MeshWorld,
) -> None:
    gateway, one, other = await join_all(world, 2)
    await world.stop()
    address = await ipv4(world, one)
    assert address is not None
    await claim(world, other, address)
    await world.start()
    await world.settle(2 * MINUTE)
    keeper, loser = await world.by_age(one, other)
    assert await ipv4(world, keeper) == address
    assert await ipv4(world, loser) not in (None, address)
    assert f"{address}/32" in gateway.peers[keeper.key].allowed_ips
    assert f"{address}/32" not in gateway.peers[loser.key].allowed_ips


async def test_who_loses_an_address_to_an_older_device_gets_another_at_once(world: MeshWorld) -> None:
    world.configure(observe_every=timedelta(hours=1))
    gateway, one, other = await join_all(world, 2)
    keeper, loser = await world.by_age(one, other)
    address = await ipv4(world, loser)
    assert address is not None
    await world.edit(keeper, spec={"network": {"enabled": False}})
    await world.settle()
    await claim(world, keeper, address)
    await world.edit(keeper, spec={"network": {"enabled": True}})
    await world.settle()
    assert await ipv4(world, keeper) == address
    assert await ipv4(world, loser) not in (None, address)
    assert f"{address}/32" in gateway.peers[keeper.key].allowed_ips
    assert f"{address}/32" not in gateway.peers[loser.key].allowed_ips


async def test_a_network_that_an_older_device_takes_is_missed_by_the_younger_one_at_once(world: MeshWorld) -> None:
    world.configure(observe_every=timedelta(hours=1))
    _, one, other = await join_all(world, 2)
    older, younger = await world.by_age(one, other)
    await world.edit(younger, spec={"pod": {"ipv4CIDR": "10.42.9.0/24"}})
    await world.settle()
    assert (await world.status(younger))["podCIDRs"] == ["10.42.9.0/24"]
    await world.edit(older, spec={"pod": {"ipv4CIDR": "10.42.9.0/24"}})
    await world.settle()
    assert (await world.condition(younger, "Accepted"))[:2] == ("False", "NetworkTaken")
    assert "podCIDRs" not in await world.status(younger)


async def test_nothing_is_sent_before_the_address_is_written(world: MeshWorld) -> None:
    edge = world.hosts.add("edge-1")
    before, answer = world.systems.kube.requests["patch", "EdgeDevice"], edge.answer
    patches_before_ensure: list[int] = []

    def watched(data: bytes) -> bytes:
        if isinstance(unpack_request(data), pb.HostNetworkConfigEnsureRequest):
            patches_before_ensure.append(world.systems.kube.requests["patch", "EdgeDevice"])
        return answer(data)

    edge.answer = watched  # type: ignore[method-assign]
    await world.make_node("edge-1")
    world.hosts.connect(edge, new=True)
    await world.settle(MINUTE)
    assert patches_before_ensure[0] > before
    assert {request.expected[0].metadata.addresses[0] for request in edge.ensures} == {f"{await ipv4(world, edge)}/32"}


async def test_a_hundred_devices_join_at_once_and_each_is_told_to_few(world: MeshWorld) -> None:
    count = 100
    world.configure(direct=DirectConfiguration(max_peers=4))
    hosts = await join_all(world, count)
    await world.settle(2 * MINUTE)
    gateway, edges = hosts[0], hosts[1:]
    addresses = [obj["status"]["mesh"]["ipv4"] for obj in await world.all_devices()]
    assert len(addresses) == len(set(addresses)) == count + 1
    assert set(gateway.peers) == {edge.key for edge in edges}
    most = world.configuration.mesh.direct.max_peers
    assert max(len(edge.peers) for edge in edges) <= most + 1
    conditions = [await world.condition(host) for host in hosts]
    assert {condition[0] for condition in conditions} == {"True"}
    # Each is told to the gateway when its key and when its networks are known, and to each of its partners when it
    # joins and when it is heard; whoever moves up in the ring costs as much again.
    assert peers_sent([gateway]) <= 4 * count
    assert peers_sent(edges) <= 6 * most * count
    world.hosts.forget_requests()
    writes = world.writes
    world.manager.enqueue_all()
    await world.settle(0)
    assert peers_sent(hosts) == 0
    assert [host.ensures for host in hosts if host.ensures] == []
    assert world.writes == writes


async def test_a_join_into_a_large_mesh_is_told_to_the_gateway_and_its_partners(world: MeshWorld) -> None:
    world.configure(direct=DirectConfiguration(max_peers=4))
    hosts = await join_all(world, 30)
    await world.settle(2 * MINUTE)
    world.hosts.forget_requests()
    late = await world.join("edge-late")
    await world.settle(2 * MINUTE)
    assert (await world.condition(late))[0] == "True"
    told = [host for host in hosts if host.ensures]
    assert len(told) <= 1 + 2 * world.configuration.mesh.direct.max_peers
    assert peers_sent([hosts[0]]) <= 3
    assert all(request.expected[0].wireguard.partial for host in told for request in host.ensures)


def peers_sent(hosts: Sequence[Host]) -> int:
    """How many peers these hosts were told in all."""
    return sum(len(_wireguard(request).peers) for host in hosts for request in host.ensures)


def _wireguard(request: pb.HostNetworkConfigEnsureRequest) -> pb.DriverWireguard:
    return request.expected[0].wireguard
