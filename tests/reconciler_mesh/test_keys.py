"""Private keys that are made here: never told, replaced when they are lost, and gone with their device."""

from __future__ import annotations

from edgefarm import names
from edgefarm.vault import Vault
from tests.reconciler_mesh.hosts import Host
from tests.reconciler_mesh.world import MeshWorld

MINUTE = 60


async def keyless(world: MeshWorld) -> Host:
    """An edge host whose abbot cannot make a key."""
    world.configure(keys="controller")
    edge = await world.join("edge-1", extended=False)
    await world.settle(MINUTE)
    return edge


async def test_a_key_that_a_host_repeats_is_not_told(world: MeshWorld) -> None:
    edge = await keyless(world)
    assert edge.mesh is not None
    key = edge.mesh.private_key
    edge.failure = f"wg: {key} is no key"
    await world.settle(MINUTE)
    assert (await world.condition(edge, "Configured"))[2] == "wg: *** is no key"
    assert key not in str(await world.all_devices())
    assert key not in str(world.events.seen)


async def test_a_key_that_vault_has_lost_is_replaced_on_the_host_too(world: MeshWorld, vault: Vault) -> None:
    gateway = await world.join("cluster-1", names.ROLE_GATEWAY)
    edge = await keyless(world)
    lost = edge.key
    await world.stop()
    vault.delete_document(names.mesh_key_document(edge.device))
    await world.start()
    await world.settle(MINUTE)
    assert edge.key != lost
    assert set(gateway.peers) == {edge.key}
    assert (await world.condition(edge))[0] == "True"


async def test_a_key_goes_with_its_device_also_when_somebody_took_the_finalizer_off(
    world: MeshWorld, vault: Vault
) -> None:
    edge = await keyless(world)
    document = names.mesh_key_document(edge.device)
    assert vault.read_document(document) is not None
    await world.edit(edge, metadata={"finalizers": None})
    await world.delete(edge)
    await world.settle()
    assert vault.read_document(document) is None
