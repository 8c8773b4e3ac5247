"""Rotation, revocation, deletion: how rights end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import nats.errors
import pytest

from edgefarm import names
from edgefarm.errors import NatsUnavailable, VaultUnavailable
from edgefarm.nats import jwt
from reconciler.configuration import KeysConfiguration
from reconciler.ports import NETWORK, POLICY, SERVICE_ACCOUNT
from tests.reconciler.conftest import Site


def now_text(ahead: timedelta = timedelta(0)) -> str:
    """A time as users write it into annotations."""
    return (datetime.now(UTC) + ahead).isoformat()


async def test_a_key_rotates_and_both_versions_work_until_the_overlap_is_over(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    old = site.world.credentials(site.network, site.factory, "sensor")
    async with await site.world.connect(old) as client:
        await site.annotate("sensor", rotate_keys_at=now_text())
        await site.reconciler.converge()
        new = site.world.credentials(site.network, site.factory, "sensor")
        assert jwt.decode(new[0])["iss"] != jwt.decode(old[0])["iss"]
        policy = await site.get(POLICY, "sensor")
        assert policy is not None
        assert (policy["status"]["keyVersion"], policy["status"]["key"]) == (2, jwt.decode(new[0])["iss"])
        async with await site.world.connect(new):
            await client.settle()
            assert not client.closed.is_set()
            site.reconciler.ahead = timedelta(days=32)
            await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
            await asyncio.wait_for(client.closed.wait(), 5)
        async with await site.world.connect(new):
            pass
    with pytest.raises(nats.errors.Error):
        await site.world.connect(old)


async def test_a_key_rotates_on_schedule(site: Site) -> None:
    keys = KeysConfiguration(rotate_every=timedelta(days=20), overlap=timedelta(days=31))
    site.reconciler.configuration = replace(site.world.configuration, keys=keys)
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    old = site.world.credentials(site.network, site.factory, "sensor")
    async with await site.world.connect(old) as client:
        site.reconciler.ahead = keys.rotate_every
        await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
        site.reconciler.ahead = timedelta(0)
        new = site.world.credentials(site.network, site.factory, "sensor")
        assert jwt.decode(new[0])["iss"] != jwt.decode(old[0])["iss"]
        await client.settle()
        assert not client.closed.is_set()


async def test_revoked_versions_are_cut_at_once(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    old = site.world.credentials(site.network, site.factory, "sensor")
    async with await site.world.connect(old) as client:
        await site.annotate("sensor", revoke_keys_before=now_text())
        await site.reconciler.converge()
        await asyncio.wait_for(client.closed.wait(), 2)
    async with await site.world.connect(site.world.credentials(site.network, site.factory, "sensor")):
        pass


async def test_an_account_that_leaves_a_policy_is_cut_and_the_others_can_come_back(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"], serviceAccounts=["guest"])
    await site.reconciler.converge()
    guest = site.world.credentials(site.network, site.factory, "guest")
    async with await site.world.connect(guest) as client:
        await site.edit(POLICY, "sensor", spec={"serviceAccounts": []})
        await site.reconciler.converge()
        await asyncio.wait_for(client.closed.wait(), 2)
    with pytest.raises(nats.errors.Error):
        await site.world.connect(guest)
    async with await site.world.connect(site.world.credentials(site.network, site.factory, "sensor")):
        pass
    assert site.world.held(site.network)["documents"] == [names.access_document(site.network, site.factory, "sensor")]


async def test_deleting_a_network_removes_everything_but_service_accounts(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("sensor", network=site.network, allowpub=["sensor.>"])
    await site.reconciler.converge()
    account = await site.account()
    sensor = site.world.credentials(site.network, site.factory, "sensor")
    async with await site.world.connect(sensor) as client:
        await site.delete(NETWORK, site.network)
        await site.reconciler.converge()
        await asyncio.wait_for(client.closed.wait(), 5)
    assert await site.get(NETWORK, site.network) is None
    assert [answer.jwt for answer in await site.reconciler.context.nats().lookup(account)] == [None]
    assert not any(site.world.held(site.network).values())
    assert await site.get(POLICY, site.network) is None
    assert (await site.condition(POLICY, "sensor", "Accepted"))[:2] == ("False", "NetworkNotFound")
    policy = await site.get(POLICY, "sensor")
    assert policy is not None
    assert set(policy["status"]) == {"conditions"}
    assert await site.get(SERVICE_ACCOUNT, "sensor") is not None


async def test_the_account_goes_before_the_keys(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    site.reconciler.gate.reset()
    await site.delete(NETWORK, site.network)
    await site.reconciler.converge()
    writes = [" ".join(write.split()[:2]) for write in site.reconciler.gate.writes]
    order = ["nats delete", "vault delete_policy", "vault delete_role", "vault delete_document", "vault delete_key"]
    assert sorted(set(writes) & set(order), key=writes.index) == order
    assert site.reconciler.gate.writes.index(f"vault delete_key {names.account_key(site.network)}") == max(
        index for index, write in enumerate(writes) if write == "vault delete_key"
    )


@pytest.mark.parametrize(("system", "error"), [("nats_down", NatsUnavailable), ("vault_down", VaultUnavailable)])
async def test_an_unreachable_system_never_loses_the_finalizer(site: Site, system: str, error: type[Exception]) -> None:
    await site.make_network()
    await site.make_policy("sensor", network=site.network, allowpub=["sensor.>"])
    await site.reconciler.converge()
    setattr(site.reconciler.gate, system, True)
    await site.delete(NETWORK, site.network)
    for _ in range(2):
        with pytest.raises(error):
            await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    network = await site.get(NETWORK, site.network)
    assert network is not None
    assert names.FINALIZER in network["metadata"]["finalizers"]
    status, reason, message = await site.condition(NETWORK, site.network, "Ready")
    assert (status, reason) == ("False", "Deleting")
    assert "does not answer" in message
    setattr(site.reconciler.gate, system, False)
    await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert await site.get(NETWORK, site.network) is None
    assert not any(site.world.held(site.network).values())


async def test_a_network_can_be_made_again_under_the_same_name(site: Site) -> None:
    for _ in range(2):
        await site.make_network()
        await site.make_policy("sensor", network=site.network, allowpub=["sensor.>"])
        await site.reconciler.converge()
        async with await site.world.connect(site.world.credentials(site.network, site.factory, "sensor")):
            pass
        await site.delete(POLICY, "sensor")
        await site.delete(NETWORK, site.network)
        await site.reconciler.converge()
        assert await site.get(NETWORK, site.network) is None


async def test_a_namespace_that_leaves_the_list_loses_copy_and_credentials(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("dashboard", site.office, network=site.network, allowsub=["sensor.>"])
    await site.reconciler.converge()
    dashboard = site.world.credentials(site.network, site.office, "dashboard")
    async with await site.world.connect(dashboard) as client:
        await site.edit(NETWORK, site.network, spec={"namespaces": [site.factory]})
        await site.reconciler.converge()
        await asyncio.wait_for(client.closed.wait(), 2)
    assert await site.get(POLICY, site.network, site.office) is None
    assert await site.get(POLICY, site.network) is not None
    accepted = await site.condition(POLICY, "dashboard", "Accepted", site.office)
    assert accepted[:2] == ("False", "NamespaceNotInNetwork")
