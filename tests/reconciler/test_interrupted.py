"""A pass that died while rights changed hands: no credential from before outlives what follows."""

from __future__ import annotations

import itertools

import nats.errors
import pytest

from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.vault import Vault
from reconciler.ports import POLICY
from tests.natskit import Credentials
from tests.reconciler.conftest import Site
from tests.reconciler.world import sign_user


async def test_a_policy_made_again_after_an_interrupted_removal_does_not_revive_old_credentials(site: Site) -> None:
    for call in itertools.count(1):
        network, factory = f"{site.network}-{call}", f"{site.factory}-{call}"
        await site.make_namespace(factory)
        await site.make_policy("sensor", factory, allowpub=["sensor.>"], serviceAccounts=["guest"])
        await site.make_network(network, [factory])
        await site.reconciler.converge()
        old = site.world.credentials(network, factory, "guest")
        await site.delete(POLICY, "sensor", factory)
        killed = await site.reconciler.killed_at(call, network)
        await site.make_policy("sensor", factory, allowpub=["sensor.>"])
        await site.reconciler.converge()
        await refused(site, old, f"killed before outside call {call}")
        if not killed:
            assert call > 10
            return


async def test_who_leaves_after_an_interrupted_joining_keeps_nothing(site: Site) -> None:
    for call in itertools.count(1):
        network, factory = f"{site.network}-{call}", f"{site.factory}-{call}"
        await site.make_namespace(factory)
        await site.make_policy("sensor", factory, allowpub=["sensor.>"])
        await site.make_network(network, [factory])
        await site.reconciler.converge()
        await site.edit(POLICY, "sensor", factory, spec={"serviceAccounts": ["guest"]})
        killed = await site.reconciler.killed_at(call, network)
        signed = await forged(site, network, factory)
        await site.edit(POLICY, "sensor", factory, spec={"serviceAccounts": []})
        await site.reconciler.converge()
        if signed is not None:
            await refused(site, signed, f"killed before outside call {call}")
        if not killed:
            assert call > 10
            assert signed is not None
            return


async def forged(site: Site, network: str, factory: str) -> Credentials | None:
    """What `guest` can have signed, if its grant allows that already; all that it must know stands in public places."""
    (key,) = await site.signing_keys(network)
    document = {
        "account": await site.account(network),
        "signingKey": key,
        "transitKey": names.policy_key(network, factory, "sensor"),
        "keyVersion": 1,
        "lifetimeSeconds": 3600,
    }
    vault = Vault(site.world.admin.settings)
    try:
        vault.login(names.grant_role(network, factory, "guest"), site.world.reviewer.token(factory, "guest"))
        return sign_user(vault, document)
    except VaultRefused:
        return None
    finally:
        vault.close()


async def refused(site: Site, credentials: Credentials, when: str) -> None:
    """The hub does not accept these."""
    try:
        connection = await site.world.connect(credentials)
    except nats.errors.Error:
        return
    await connection.client.close()
    pytest.fail(f"still accepted: {when}")
