"""The Network controller against a real API server, OpenBao and nats-server: what it brings about."""

from __future__ import annotations

import asyncio

from edgefarm import names
from reconciler.ports import NETWORK, POLICY, SERVICE_ACCOUNT
from tests.reconciler.conftest import Site


async def test_a_network_becomes_ready_and_its_policies_work(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.make_policy("dashboard", site.office, allowsub=["sensor.>"])
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"
    assert (await site.condition(POLICY, "sensor", "Ready"))[:2] == ("True", "Reconciled")
    assert (await site.condition(POLICY, "dashboard", "Accepted", site.office))[:2] == ("True", "Accepted")
    for namespace, account in ((site.factory, "sensor"), (site.office, "dashboard"), (site.office, site.network)):
        assert await site.get(SERVICE_ACCOUNT, account, namespace) is not None
    sensor = site.world.credentials(site.network, site.factory, "sensor")
    dashboard = site.world.credentials(site.network, site.office, "dashboard")
    async with await site.world.connect(sensor) as publisher, await site.world.connect(dashboard) as subscriber:
        subscription = await subscriber.client.subscribe("sensor.>")
        await subscriber.settle()
        await publisher.client.publish("sensor.one", b"1")
        assert (await subscription.next_msg(timeout=5)).data == b"1"
        await publisher.client.publish("hello.one", b"1")
        await publisher.settle()
        assert "permissions violation" in publisher.errors[0].lower()
    default = site.world.credentials(site.network, site.factory, "default")
    async with await site.world.connect(default) as client:
        await client.client.publish("hello.one", b"1")
        await client.settle()
        assert client.errors == []


async def test_a_second_pass_writes_nothing(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("sensor", allowpub=["sensor.>"], serviceAccounts=["one", "two"])
    await site.reconciler.converge()
    for again in ("later", "after a restart"):
        if again == "after a restart":
            site.reconciler.restart()
        else:
            site.reconciler.ahead += site.world.configuration.resync
        site.reconciler.gate.reset()
        await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
        await site.reconciler.once("policy", site.factory, "sensor")
        assert site.reconciler.gate.writes == []
        assert site.reconciler.gate.calls["vault"] > 4, "it looks at what Vault holds"
    assert site.reconciler.events.seen == []


async def test_between_resyncs_an_unchanged_network_asks_nobody(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    site.reconciler.gate.reset()
    result = await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert site.reconciler.gate.calls.total() == 0
    assert result.requeue_after is not None
    assert result.requeue_after <= site.world.configuration.resync


async def test_deleting_a_policy_cuts_its_connections_at_once(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.make_policy("other", allowpub=["other.>"])
    await site.reconciler.converge()
    sensor = site.world.credentials(site.network, site.factory, "sensor")
    other = site.world.credentials(site.network, site.factory, "other")
    async with await site.world.connect(sensor) as cut, await site.world.connect(other) as stays:
        await site.delete(POLICY, "sensor")
        await site.reconciler.converge()
        await asyncio.wait_for(cut.closed.wait(), 2)
        await stays.settle()
        assert not stays.closed.is_set()
    held = site.world.held(site.network)
    assert held["documents"] == [names.access_document(site.network, site.factory, "other")]
    assert list(held["roles"]) == [names.grant_role(site.network, site.factory, "other")]
    assert list(held["policies"]) == [names.vault_policy(*held["roles"])]
    assert list(held["keys"]) == [
        names.account_key(site.network),
        names.controller_key(site.network),
        names.policy_key(site.network, site.factory, "other"),
    ]
