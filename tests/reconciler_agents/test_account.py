"""The agents' account: made with the mesh, kept, rotated, and removed with it."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import nats.errors
import pytest

from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.nats import jwt, nkeys
from edgefarm.vault import Vault
from reconciler.controllers.agents_account import TERRITORY
from reconciler.controllers.vault_objects import Territory
from tests.natskit import Connection
from tests.reconciler.world import sign_user
from tests.reconciler_agents.kit import NAMESPACE, Cluster, Office, accepted, denied

ACCOUNTS = ("network-agent", "network-gateway")


async def stored(office: Office, account: str) -> str | None:
    (answer,) = await office.context.nats().lookup(account)
    return answer.jwt


async def connect(office: Office, document: dict[str, Any]) -> Connection:
    """A new agent of this access document."""
    credentials = sign_user(office.world.admin, document)
    return await Connection.open(office.world.hub.url, office.world.authority, credentials)


async def test_both_service_accounts_get_a_grant_and_the_account_has_no_jetstream(office: Office) -> None:
    assert office.held() == {
        "keys": {names.AGENTS_ACCOUNT_KEY: [1], names.AGENTS_KEY: [1], names.AGENTS_CONTROLLER_KEY: [1]},
        "roles": [names.agent_role(account) for account in ACCOUNTS],
        "policies": [names.vault_policy(names.agent_role(account)) for account in ACCOUNTS],
        "documents": [names.agent_access_document(NAMESPACE, account) for account in ACCOUNTS],
    }
    document = office.document()
    assert document["hub"] == [office.world.hub.url]
    assert document["transitKey"] == names.AGENTS_KEY
    role = office.world.admin.role(names.agent_role("network-agent"))
    assert role is not None
    assert (role.namespace, role.service_account, role.audience) == (NAMESPACE, "network-agent", "edgefarm-network")
    token = await stored(office, document["account"])
    assert token is not None
    claims = jwt.decode(token)
    assert (claims["name"], claims["nats"]["limits"]["disk_storage"]) == ("AGENTS", 0)


async def test_a_second_pass_writes_nothing(office: Office) -> None:
    before = office.world.admin.writes
    office.gate.reset()
    await office.converge()
    assert office.gate.writes == []
    assert office.world.admin.writes == before


async def test_what_was_changed_or_lost_is_mended(office: Office) -> None:
    wanted, account = office.held(), office.document()["account"]
    role = names.agent_role("network-agent")
    await asyncio.to_thread(office.world.admin.delete_role, role)
    await asyncio.to_thread(office.world.admin.write_policy, names.vault_policy(role), 'path "x" {}')
    path = names.agent_access_document(NAMESPACE, "network-gateway")
    await asyncio.to_thread(office.world.admin.delete_document, path)
    await office.context.nats().delete(await office.deletion_of(account))
    assert await stored(office, account) is None
    await office.converge()
    assert office.held() == wanted
    assert await stored(office, account) is not None
    office.credentials(nkeys.generate_user())


async def test_an_agent_may_sign_with_the_agents_key_alone_and_read_its_own_document_alone(office: Office) -> None:
    vault = Vault(office.world.admin.settings)
    vault.login(names.agent_role("network-agent"), office.world.reviewer.token(NAMESPACE, "network-agent"))
    try:
        for key in (names.AGENTS_CONTROLLER_KEY, names.AGENTS_ACCOUNT_KEY, names.SYSTEM_CONTROLLER_KEY):
            with pytest.raises(VaultRefused):
                vault.sign(key, 1, b"data")
        with pytest.raises(VaultRefused):
            vault.read_document(names.agent_access_document(NAMESPACE, "network-gateway"))
    finally:
        vault.close()


async def test_nobody_else_gets_the_role_of_agents(office: Office) -> None:
    vault = Vault(office.world.admin.settings)
    try:
        for namespace, account in ((NAMESPACE, "network-gateway"), ("default", "network-agent")):
            with pytest.raises(VaultRefused):
                vault.login(names.agent_role("network-agent"), office.world.reviewer.token(namespace, account))
    finally:
        vault.close()


async def test_the_agents_key_rotates_and_both_versions_are_valid_for_the_overlap(office: Office) -> None:
    old, keys = office.document(), office.configuration.keys
    # Vault dates keys by its own clock, so it is the schedule that moves.
    office.configuration = replace(office.configuration, keys=replace(keys, rotate_every=timedelta(milliseconds=1)))
    await office.converge()
    office.configuration = replace(office.configuration, keys=keys)
    again = await office.converge()
    assert again.requeue_after is not None
    assert keys.overlap - timedelta(minutes=1) < again.requeue_after <= keys.overlap
    assert office.held()["keys"][names.AGENTS_KEY] == [1, 2]
    assert office.document()["keyVersion"] == 2
    for document in (old, office.document()):
        async with await connect(office, document):
            pass
    office.configuration = replace(office.configuration, keys=replace(keys, overlap=timedelta(milliseconds=1)))
    await office.converge()
    with pytest.raises(nats.errors.Error):
        await connect(office, old)


async def test_the_account_goes_with_the_mesh_and_with_it_all_connections(office: Office) -> None:
    account = office.document()["account"]
    user = nkeys.generate_user()
    credentials = office.credentials(user)
    async with await Connection.open(office.world.hub.url, office.world.authority, credentials) as agent:
        await office.switch_off()
        await asyncio.wait_for(agent.closed.wait(), 10)
    assert office.held() == {"keys": {}, "roles": [], "policies": [], "documents": []}
    assert await stored(office, account) is None
    with pytest.raises(nats.errors.Error):
        await Connection.open(office.world.hub.url, office.world.authority, credentials)
    office.gate.reset()
    await office.converge()
    assert office.gate.writes == []


async def test_a_network_that_is_called_agents_has_keys_of_its_own(office: Office) -> None:
    theirs = [names.account_key("agents"), names.controller_key("agents"), names.leaf_key("agents", "agents")]
    for name in theirs:
        await asyncio.to_thread(office.world.admin.create_key, name)
    ours = office.world.admin.key(names.AGENTS_ACCOUNT_KEY)
    assert ours is not None
    await office.switch_off()
    left = [office.world.admin.key(name) for name in theirs]
    assert None not in left
    assert ours.versions[1].public_key not in [key.versions[1].public_key for key in left if key is not None]
    for name in theirs:
        await asyncio.to_thread(office.world.admin.delete_key, name)


async def test_a_lost_account_key_leaves_no_account_behind(office: Office) -> None:
    account = office.document()["account"]
    await asyncio.to_thread(office.world.admin.delete_key, names.AGENTS_ACCOUNT_KEY)
    await office.converge()
    assert office.document()["account"] != account
    assert await stored(office, account) is None


async def test_agents_of_an_earlier_controller_namespace_lose_their_rights_with_their_key(office: Office) -> None:
    document = office.document()
    path = names.agent_access_document("earlier", "network-agent")
    await asyncio.to_thread(office.world.admin.write_document, path, document)
    before = await connect(office, document)
    await office.converge()
    assert path not in office.held()["documents"]
    assert office.document()["signingKey"] != document["signingKey"]
    await asyncio.wait_for(before.closed.wait(), 10)


async def test_interrupted_making_is_finished_by_the_next_pass(office: Office) -> None:
    await office.switch_off()
    for call in itertools.count(1):
        office.switch_on()
        finished = await office.killed_at(call)
        await office.converge()
        office.credentials(nkeys.generate_user())
        await office.switch_off()
        if finished:
            assert call > 10
            return


async def test_interrupted_removal_is_finished_by_the_next_pass(office: Office) -> None:
    for call in itertools.count(1):
        office.switch_on()
        await office.converge()
        account = office.document()["account"]
        office.configuration = office.without_mesh()
        finished = await office.killed_at(call)
        await office.converge()
        assert office.held() == {"keys": {}, "roles": [], "policies": [], "documents": []}, call
        assert await stored(office, account) is None, call
        if finished:
            assert call > 10
            return


async def test_after_the_mesh_was_off_agents_come_back_with_new_credentials(
    listening: Office, cluster: Cluster
) -> None:
    token = cluster.token(await cluster.pod("edge"))
    await listening.switch_off()
    listening.switch_on()
    await listening.converge()
    await listening.heard()
    async with listening.agent(token) as agent:
        assert denied(await agent.heartbeat()) == "Unknown"
        accepted(await agent.register())


def test_no_network_owns_anything_of_the_agents() -> None:
    for network in ("agents", "agent", "a", "agents-1"):
        theirs = Territory.of_network(network)
        keys = (TERRITORY.account, *TERRITORY.keys)
        assert not any(theirs.has_key(key) for key in keys)
        assert not any(TERRITORY.has_key(key) for key in (theirs.account, *theirs.keys, *theirs.key_prefixes))
        for account in ACCOUNTS:
            assert not names.agent_role(account).startswith(theirs.role_prefix)
            assert not names.agent_access_document(NAMESPACE, account).startswith(f"{theirs.folder}/")
        assert not names.grant_role(network, "x", "y").startswith(TERRITORY.role_prefix)
