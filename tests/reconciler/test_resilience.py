"""Outages, deaths at any line, drift: a later pass always finds its way to the same end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import NatsUnavailable, VaultUnavailable
from edgefarm.nats import jwt
from edgefarm.nats.claims import delete_claims
from reconciler.ports import NETWORK, POLICY, SERVICE_ACCOUNT
from tests.natskit import jti
from tests.reconciler.conftest import Site


@pytest.mark.parametrize(
    ("system", "error", "reason"),
    [("nats_down", NatsUnavailable, "NatsUnavailable"), ("vault_down", VaultUnavailable, "VaultUnavailable")],
)
async def test_an_outage_is_told_and_survived(site: Site, system: str, error: type[Exception], reason: str) -> None:
    setattr(site.reconciler.gate, system, True)
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    for _ in range(2):
        with pytest.raises(error):
            await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    for kind, name in ((NETWORK, site.network), (POLICY, "sensor")):
        status, why, message = await site.condition(kind, name, "Ready")
        assert (status, why) == ("False", reason)
        assert "does not answer" in message
    setattr(site.reconciler.gate, system, False)
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "Ready"))[0] == "True"
    assert (await site.condition(POLICY, "sensor", "Ready"))[0] == "True"


async def test_a_policy_in_effect_stays_ready_during_an_outage(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    site.reconciler.gate.vault_down = True
    await site.make_policy("younger", allowpub=["younger.>"])
    with pytest.raises(VaultUnavailable):
        await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert (await site.condition(POLICY, "sensor", "Ready"))[0] == "True"
    assert (await site.condition(POLICY, "younger", "Ready"))[:2] == ("False", "VaultUnavailable")
    site.reconciler.gate.vault_down = False
    await site.reconciler.converge()


async def test_a_repeated_failure_is_not_written_again(site: Site) -> None:
    site.reconciler.gate.nats_down = True
    await site.make_network()
    for _ in range(2):
        site.reconciler.gate.reset()
        with pytest.raises(NatsUnavailable):
            await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert site.reconciler.gate.writes == []


async def test_a_real_server_that_is_down_and_comes_back(site: Site) -> None:
    await site.make_network()
    site.world.hub.stop()
    with pytest.raises(NatsUnavailable):
        await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert (await site.condition(NETWORK, site.network, "AccountPushed"))[:2] == ("Unknown", "NatsUnavailable")
    site.world.restart_hub()
    await site.reconciler.converge()
    assert (await site.condition(NETWORK, site.network, "AccountPushed"))[:2] == ("True", "ReadBack")


async def end_state(site: Site, network: str, factory: str) -> dict[str, Any]:
    """Everything that a network consists of, with its own names taken out so that two can be compared."""
    held = site.world.held(network)
    obj, policy = await site.get(NETWORK, network), await site.get(POLICY, "sensor", factory)
    assert obj is not None
    assert policy is not None
    text = repr(
        {
            "vault": {kind: sorted(found) for kind, found in held.items()},
            "conditions": [(c["type"], c["status"], c["reason"]) for c in obj["status"]["conditions"]],
            "facts": (obj["status"]["grants"], obj["status"]["policies"], obj["metadata"]["finalizers"]),
            "policy": [(c["type"], c["status"]) for c in policy["status"]["conditions"]],
            "accounts": policy["status"]["serviceAccounts"],
            "copy": await site.get(POLICY, network, factory) is not None,
            "account": await site.get(SERVICE_ACCOUNT, "sensor", factory) is not None,
        }
    )
    return {"state": text.replace(factory, "FACTORY").replace(network, "NETWORK")}


async def test_killed_before_any_outside_call_the_next_process_ends_in_the_same_state(site: Site) -> None:
    expected: dict[str, Any] | None = None
    for call in itertools.chain([None], itertools.count(1)):
        network, factory = f"{site.network}-{call or 0}", f"{site.factory}-{call or 0}"
        await site.make_namespace(factory)
        await site.make_policy("sensor", factory, allowpub=["sensor.>"], serviceAccounts=["one"])
        await site.make_network(network, [factory], defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
        killed = await site.reconciler.killed_at(call, network)
        await site.reconciler.converge()
        state = await end_state(site, network, factory)
        expected = expected or state
        assert state == expected, f"killed before outside call {call}"
        async with await site.world.connect(site.world.credentials(network, factory, "sensor")):
            pass
        if call is not None and not killed:
            assert call > 20
            return


async def test_killed_during_a_removal_nothing_is_left_over(site: Site) -> None:
    for call in itertools.count(1):
        network, factory = f"{site.network}-{call}", f"{site.factory}-{call}"
        await site.make_namespace(factory)
        await site.make_policy("sensor", factory, allowpub=["sensor.>"], serviceAccounts=["one"])
        await site.make_policy("other", factory, allowpub=["other.>"])
        await site.make_network(network, [factory])
        await site.reconciler.converge()
        one = site.world.credentials(network, factory, "one")
        await site.edit(POLICY, "sensor", factory, spec={"serviceAccounts": []})
        await site.delete(POLICY, "other", factory)
        killed = await site.reconciler.killed_at(call, network)
        await site.reconciler.converge()
        held = site.world.held(network)
        assert held["documents"] == [names.access_document(network, factory, "sensor")]
        assert list(held["roles"]) == [names.grant_role(network, factory, "sensor")]
        assert list(held["keys"]) == [
            names.account_key(network),
            names.controller_key(network),
            names.policy_key(network, factory, "sensor"),
        ]
        keys = await site.signing_keys(network)
        assert jwt.decode(one[0])["iss"] not in keys
        assert len(keys) == 1
        killed_deleting = await deleted_in_two_goes(site, call, network)
        assert not any(site.world.held(network).values())
        assert await site.get(NETWORK, network) is None
        if not killed and not killed_deleting:
            assert call > 10
            return


async def deleted_in_two_goes(site: Site, call: int, network: str) -> bool:
    await site.delete(NETWORK, network)
    killed = await site.reconciler.killed_at(call, network)
    await site.reconciler.converge()
    return killed


async def test_what_somebody_deletes_is_put_back_within_the_resync_period_and_told(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    before = site.world.held(site.network)
    admin, role = site.world.admin, names.grant_role(site.network, site.factory, "sensor")
    admin.delete_role(role)
    admin.write_policy(names.vault_policy(role), 'path "sys/*" { capabilities = ["read"] }')
    admin.delete_document(names.access_document(site.network, site.factory, "sensor"))
    await lose_account(site)
    site.reconciler.ahead = site.world.configuration.resync
    await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert site.world.held(site.network) == before
    async with await site.world.connect(site.world.credentials(site.network, site.factory, "sensor")):
        pass
    told = [message for name, reason, message in site.reconciler.events.seen if reason == "DriftMended"]
    assert {message.split()[0] for message in told} == {"account", "Vault", "role", "document"}


async def lose_account(site: Site) -> None:
    """Take the account from the server, as a wiped disk would."""
    account, vault, issuer = await site.account(), site.world.admin, site.world.operator.signing_keys[0]
    data = jwt.signing_input(delete_claims(accounts=[account], issuer=issuer, jti=jti(), issued_at=1))
    signature = vault.sign(names.OPERATOR_SIGNING_KEYS[0], 1, data)
    nats = site.reconciler.context.nats()
    await nats.delete(jwt.assemble(data, signature))
    assert [answer.jwt for answer in await nats.lookup(account)] == [None]


async def test_a_deleted_key_is_made_again(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    old = site.world.credentials(site.network, site.factory, "sensor")
    site.world.admin.delete_key(names.policy_key(site.network, site.factory, "sensor"))
    site.reconciler.ahead = site.world.configuration.resync
    await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    new = site.world.credentials(site.network, site.factory, "sensor")
    assert jwt.decode(new[0])["iss"] != jwt.decode(old[0])["iss"]
    async with await site.world.connect(new):
        pass


async def test_a_deleted_account_key_makes_a_new_account_and_ends_the_old_one(site: Site) -> None:
    await site.make_network()
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    old = await site.account()
    site.world.admin.delete_key(names.account_key(site.network))
    site.reconciler.ahead = site.world.configuration.resync
    await site.reconciler.once("network", names.CONTROLLER_NAMESPACE, site.network)
    assert await site.account() != old
    assert [answer.jwt for answer in await site.reconciler.context.nats().lookup(old)] == [None]
    async with await site.world.connect(site.world.credentials(site.network, site.factory, "sensor")):
        pass


async def test_an_edited_or_deleted_copy_and_a_deleted_service_account_come_back_at_once(site: Site) -> None:
    await site.make_network(defaultNetworkPolicy={"spec": {"allowpub": ["hello.>"]}})
    await site.make_policy("sensor", allowpub=["sensor.>"])
    await site.reconciler.converge()
    await site.edit(POLICY, site.network, spec={"allowpub": ["everything.>"]})
    await site.delete(POLICY, site.network, site.office)
    await site.delete(SERVICE_ACCOUNT, "sensor")
    await site.reconciler.converge()
    for namespace in (site.factory, site.office):
        copy = await site.get(POLICY, site.network, namespace)
        assert copy is not None
        assert copy["spec"]["allowpub"] == ["hello.>"]
    assert await site.get(SERVICE_ACCOUNT, "sensor") is not None
