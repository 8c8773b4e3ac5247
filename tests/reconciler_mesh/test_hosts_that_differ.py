"""Hosts that refuse, fall silent, have no key of their own, share a key, or have networks that others have."""

from __future__ import annotations

from typing import Any

from edgefarm import names
from edgefarm.vault import Vault
from reconciler.ports import NODE
from tests.reconciler_mesh.hosts import Host
from tests.reconciler_mesh.world import MeshWorld

MINUTE = 60


async def pair(world: MeshWorld, **options: Any) -> tuple[Host, Host]:
    """A gateway and an edge host whose tunnel is alive."""
    gateway = await world.join("cluster-1", names.ROLE_GATEWAY)
    await world.settle()
    edge = await world.join("edge-1", **options)
    await world.settle(MINUTE)
    return gateway, edge


async def test_what_a_host_says_when_it_refuses_stands_in_its_condition_until_it_is_mended(world: MeshWorld) -> None:
    gateway = await world.join("cluster-1", names.ROLE_GATEWAY)
    edge = await world.join("edge-1")
    edge.refusal = "abbot: interface edgefarm0: no TUN device " + "x" * 5000
    await world.settle(MINUTE)
    status, reason, message = await world.condition(edge, "Configured")
    assert (status, reason) == ("False", "HostRefused")
    assert message.startswith("abbot: interface edgefarm0: no TUN device")
    assert len(message) <= 1024
    assert (await world.condition(edge))[:2] == ("False", "HostRefused")
    assert (await world.condition(gateway))[0] == "True" or gateway.peers == {}
    edge.refusal = ""
    await world.settle(MINUTE)
    assert (await world.condition(edge))[0] == "True"
    assert set(edge.peers) == {gateway.key}


async def test_a_host_whose_agent_gets_no_answer_is_told_everything_later(world: MeshWorld) -> None:
    gateway, edge = await pair(world)
    edge.silent = True
    await world.edit(edge, spec={"network": {"mesh": {"mtu": 1400}}})
    await world.settle(MINUTE)
    assert (await world.condition(edge, "Configured"))[:2] == ("False", "HostSilent")
    assert (await world.condition(gateway, "Configured"))[0] == "True"
    edge.silent = False
    await world.settle(MINUTE)
    assert edge.interfaces["edgefarm0"].metadata.mtu == 1400
    assert (await world.condition(edge))[0] == "True"


async def test_a_gateway_that_refuses_a_peer_gets_it_in_its_next_pass(world: MeshWorld) -> None:
    gateway, _ = await pair(world)
    gateway.refusal = "abbot: busy"
    late = await world.join("edge-2")
    await world.settle()
    assert late.key not in gateway.peers
    gateway.refusal = ""
    await world.settle(MINUTE)
    assert late.key in gateway.peers
    assert (await world.condition(late))[0] == "True"


async def test_what_somebody_changed_on_a_host_is_put_back(world: MeshWorld) -> None:
    gateway, edge = await pair(world)
    del gateway.interfaces["edgefarm0"].wireguard.peers[:]
    edge.interfaces.clear()
    await world.settle(MINUTE)
    assert set(gateway.peers) == {edge.key}
    assert set(edge.peers) == {gateway.key}


async def test_a_host_with_a_new_key_replaces_its_old_self_everywhere(world: MeshWorld) -> None:
    gateway, edge = await pair(world)
    other = await world.join("edge-2")
    await world.settle(MINUTE)
    edge.reinstall()
    world.hosts.connect(edge)
    await world.settle(MINUTE)
    assert set(gateway.peers) == {edge.key, other.key}
    assert set(other.peers) == {edge.key, gateway.key}
    assert (await world.status(edge))["publicKey"] == edge.key


async def test_a_dead_tunnel_is_told_within_one_look(world: MeshWorld) -> None:
    _, edge = await pair(world)
    world.hosts.internet.dead.add(edge.device)
    await world.settle(31)
    assert (await world.condition(edge, "Connected"))[:2] == ("False", "NoTunnel")
    assert (await world.condition(edge))[0] == "False"
    assert (await world.status(edge))["peers"][0]["path"] == "none"
    world.hosts.internet.dead.clear()
    await world.settle(31)
    assert (await world.condition(edge))[0] == "True"


async def test_handshakes_alone_change_a_status_once_an_hour(world: MeshWorld) -> None:
    _, edge = await pair(world)
    before = (await world.status(edge))["peers"][0]["lastHandshake"]
    writes = world.writes
    await world.settle(50 * MINUTE)
    assert world.writes == writes
    await world.settle(15 * MINUTE)
    after = (await world.status(edge))["peers"][0]["lastHandshake"]
    assert after > before
    assert world.writes - writes == 2


async def test_where_one_of_two_gateways_dies_edges_are_reached_through_the_other(world: MeshWorld) -> None:
    first, edge = await pair(world)
    second = await world.join("cluster-2", names.ROLE_GATEWAY)
    await world.settle(MINUTE)
    assert set(edge.peers) == {first.key, second.key}
    assert set(first.peers) == {edge.key, second.key}
    world.hosts.internet.dead.add(first.device)
    world.hosts.disconnect(first)
    await world.settle(31)
    paths = {peer["name"]: peer["path"] for peer in (await world.status(edge))["peers"]}
    assert paths == {first.device: "none", second.device: "relay"}
    assert (await world.condition(edge))[0] == "True"
    assert (await world.condition(first))[0] == "False"
    late = await world.join("edge-late")
    await world.settle(MINUTE)
    assert (await world.condition(late))[0] == "True"
    world.hosts.internet.dead.clear()
    world.hosts.connect(first)
    await world.settle(31)
    assert set(first.peers) == {edge.key, second.key, late.key}
    assert (await world.condition(first))[0] == "True"


async def test_an_abbot_without_a_key_is_told_what_to_set(world: MeshWorld) -> None:
    gateway, edge = await pair(world, extended=False)
    status, reason, message = await world.condition(edge, "Configured")
    assert status == "False"
    assert reason in ("KeyNeeded", "HostRefused")
    assert reason == "HostRefused" or "mesh.keys: controller" in message
    assert gateway.peers == {}


async def test_keys_made_here_are_kept_in_vault_and_nowhere_else(world: MeshWorld, vault: Vault) -> None:
    world.configure(keys="controller")
    gateway, edge = await pair(world, extended=False)
    extended = await world.join("edge-2")
    await world.settle(MINUTE)
    document = vault.read_document(names.mesh_key_document(edge.device))
    assert document is not None
    assert edge.mesh is not None
    assert document["privateKey"] == edge.mesh.private_key
    assert (await world.status(edge))["publicKey"] == edge.key
    assert set(gateway.peers) == {edge.key, extended.key}
    assert set(edge.peers) == {gateway.key}
    assert set(extended.peers) == {gateway.key}
    assert extended.mesh is not None
    assert extended.mesh.private_key == ""
    assert vault.read_document(names.mesh_key_document(extended.device)) is None
    assert (await world.condition(edge))[0] == "True"
    assert document["privateKey"] not in str(await world.all_devices())
    assert document["privateKey"] not in str(world.events.seen)
    world.hosts.forget_requests()
    await world.restart()
    await world.settle(MINUTE)
    assert (gateway.ensures, edge.ensures, extended.ensures) == ([], [], [])
    await world.delete(edge)
    await world.settle()
    assert vault.read_document(names.mesh_key_document(edge.device)) is None
    assert set(gateway.peers) == {extended.key}


async def test_an_abbot_that_cannot_fail_over_is_given_another_gateway_when_its_own_goes(world: MeshWorld) -> None:
    world.configure(keys="controller")
    gateway, edge = await pair(world, extended=False)
    another = await world.join("cluster-2", names.ROLE_GATEWAY)
    await world.settle(MINUTE)
    first, second = await world.by_age(gateway, another)
    block = str(world.configuration.mesh.ipv4_block)
    assert block in edge.peers[first.key].allowed_ips
    assert block not in edge.peers[second.key].allowed_ips
    world.hosts.disconnect(first)
    await world.settle()
    assert block in edge.peers[second.key].allowed_ips
    assert block not in edge.peers[first.key].allowed_ips


async def test_of_two_hosts_with_one_key_the_younger_is_kept_apart(world: MeshWorld) -> None:
    gateway, edge = await pair(world)
    copy = await world.join("edge-2", copy_of=edge)
    await world.settle(2 * MINUTE)
    older, younger = await world.by_age(edge, copy)
    assert (await world.condition(younger, "Accepted"))[:2] == ("False", "KeyTaken")
    assert younger.peers == {}
    assert set(older.peers) == {gateway.key}
    (peer,) = gateway.peers.values()
    assert f"{(await world.status(older))['mesh']['ipv4']}/32" in peer.allowed_ips


async def test_containers_get_the_pod_network_of_their_node(world: MeshWorld) -> None:
    await world.join("cluster-1", names.ROLE_GATEWAY, "10.42.0.0/24")
    edge = await world.join("edge-1", names.ROLE_EDGE, "10.42.7.0/24", containers=True)
    await world.settle(MINUTE)
    assert edge.container_config is not None
    assert edge.container_config.ipv4_subnet == "10.42.7.0/24"
    assert (await world.status(edge))["podCIDRs"] == ["10.42.7.0/24"]
    gateway = world.hosts.host("gateway.cluster-1")
    assert "10.42.7.0/24" in gateway.peers[edge.key].allowed_ips
    edge.forget_requests()
    await world.settle(MINUTE)
    assert edge.container_ensures == []
    world.hosts.connect(edge)
    await world.edit(edge, spec={"pod": {"ipv4CIDR": "10.42.9.0/24"}})
    await world.settle(MINUTE)
    assert edge.container_config.ipv4_subnet == "10.42.9.0/24"
    assert "10.42.9.0/24" in gateway.peers[edge.key].allowed_ips


async def test_a_pod_network_that_comes_late_is_routed(world: MeshWorld) -> None:
    gateway, edge = await pair(world)
    await world.systems.kube.patch(NODE, None, "edge-1", {"spec": {"podCIDRs": ["10.42.3.0/24"]}})
    await world.settle()
    assert "10.42.3.0/24" in gateway.peers[edge.key].allowed_ips


async def test_containers_that_the_agent_does_not_offer_are_a_condition(world: MeshWorld) -> None:
    await world.join("cluster-1", names.ROLE_GATEWAY)
    edge = await world.join("edge-1", names.ROLE_EDGE, "10.42.7.0/24", containers=True)
    edge.containers = False
    await world.settle(MINUTE)
    assert (await world.condition(edge, "Configured"))[:2] == ("False", "ContainersNotSupported")


async def test_networks_that_an_older_device_has_are_refused(world: MeshWorld) -> None:
    gateway, first = await pair(world)
    second = await world.join("edge-2")
    await world.settle(MINUTE)
    edge, other = await world.by_age(first, second)
    await world.edit(edge, spec={"network": {"mesh": {"extraAllowedCIDRs": ["172.20.0.0/16"]}}})
    await world.settle()
    await world.edit(other, spec={"network": {"mesh": {"extraAllowedCIDRs": ["172.20.3.0/24"]}}})
    await world.settle()
    assert (await world.condition(other, "Accepted"))[:2] == ("False", "NetworkTaken")
    assert "172.20.0.0/16" in gateway.peers[edge.key].allowed_ips
    assert "172.20.3.0/24" not in gateway.peers[other.key].allowed_ips
    await world.settle(MINUTE)
    assert "172.20.0.0/16" in other.peers[gateway.key].allowed_ips
    await world.edit(edge, spec={"network": {"mesh": {"extraAllowedCIDRs": None}}})
    await world.settle(MINUTE)
    assert (await world.condition(other, "Accepted"))[0] == "True"
    assert "172.20.3.0/24" in gateway.peers[other.key].allowed_ips


async def test_a_host_in_a_network_that_the_mesh_would_take_stays_out(world: MeshWorld) -> None:
    gateway = await world.join("cluster-1", names.ROLE_GATEWAY)
    edge = await world.join("edge-1")
    edge.address = "10.201.7.7"
    await world.settle(MINUTE)
    assert (await world.condition(edge, "Accepted"))[:2] == ("False", "HostNetworkOverlaps")
    assert (edge.interfaces, gateway.peers) == ({}, {})


async def test_an_agent_that_offers_no_network_is_told_where_to_say_so(world: MeshWorld) -> None:
    edge = world.hosts.add("edge-1")
    edge.offers_network = False
    await world.make_node("edge-1")
    world.hosts.connect(edge, new=True)
    await world.settle(MINUTE)
    status, reason, message = await world.condition(edge, "Configured")
    assert (status, reason) == ("False", "NotSupported")
    assert "network.enabled" in message
    assert (edge.queries, edge.ensures) == (0, [])


async def test_an_agent_is_not_missed_before_it_had_time_to_register_with_a_new_leader(world: MeshWorld) -> None:
    _, edge = await pair(world)
    await world.stop()
    world.hosts.disconnect(edge)
    before = await world.device(edge)
    await world.start()
    await world.settle(30)
    assert await world.device(edge) == before
    await world.settle(MINUTE)
    assert (await world.condition(edge, "AgentConnected"))[0] == "False"


async def test_a_mesh_that_is_switched_off_says_so_and_lets_devices_go(world: MeshWorld) -> None:
    _, edge = await pair(world)
    world.configure(enabled=False)
    await world.settle()
    assert (await world.condition(edge))[:2] == ("False", "MeshDisabled")
    await world.delete(edge)
    await world.settle()
    assert await world.find(edge) is None


async def test_joining_and_refusals_are_events(world: MeshWorld) -> None:
    _, edge = await pair(world)
    edge.refusal = "abbot: no"
    await world.edit(edge, spec={"network": {"mesh": {"mtu": 1400}}})
    await world.settle(5 * MINUTE)
    seen = [event[:3] for event in world.events.seen if event[1] == edge.device]
    assert ("Normal", "edge-1", "TunnelAlive") in seen
    # A pass that has not seen the status of the one before says so again: the recorder makes one Event of it.
    assert 1 <= seen.count(("Warning", "edge-1", "HostRefused")) <= 2
