"""Grants in Vault: what a service account gets, and what has to go when it leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgefarm import names
from edgefarm.api.network import CredentialTimes
from edgefarm.vault import KeyVersion, Role, TransitKey
from reconciler.desired.account import account_public
from reconciler.desired.grants import (
    AccessTimes,
    Departures,
    Grant,
    GrantMaker,
    Holder,
    SigningKey,
    VaultGrants,
    departures,
    grant_writes,
    orphaned_keys,
)
from tests.reconciler.objects import NOW, configuration

ACCOUNT = account_public(b"a" * 32)
SENSOR_KEY = "policy.foo.factory.sensor"
OTHER_KEY = "policy.foo.factory.other"


def transit_key(name: str, *raw: bytes) -> TransitKey:
    versions = {number: KeyVersion(each * 32, NOW) for number, each in enumerate(raw, 1)}
    return TransitKey(name, len(raw), versions)


def signing(key: TransitKey) -> SigningKey:
    return SigningKey(key.name, key.latest_version, account_public(key.latest.public_key))


KEYS = {SENSOR_KEY: transit_key(SENSOR_KEY, b"1", b"2"), OTHER_KEY: transit_key(OTHER_KEY, b"3")}


def grant(account: str, key: str = SENSOR_KEY) -> Grant:
    maker = GrantMaker(ACCOUNT, CredentialTimes(), configuration(), {"leaf": []})
    return maker.grant(Holder("foo", "factory", account, key.rpartition(".")[2]), signing(KEYS[key]))


def held(*grants: Grant) -> VaultGrants:
    return VaultGrants(
        {each.role.name: each.role for each in grants},
        {each.role.policies[0]: each.policy for each in grants},
        {each.path: dict(each.document) for each in grants},
    )


def in_use(*grants: Grant) -> dict[str, str]:
    return {each.path: str(each.document["transitKey"]) for each in grants}


def test_a_grant_is_bound_to_one_account_one_key_and_one_document() -> None:
    subject = grant("sensor")
    assert subject.role == Role(
        name="foo.factory.sensor",
        namespace="factory",
        service_account="sensor",
        audience="edgefarm-network",
        policies=("edgefarm.foo.factory.sensor",),
        token_ttl=600,
    )
    assert subject.path == "access/foo/factory/sensor"
    assert SENSOR_KEY in subject.policy
    assert f"data/{subject.path}" in subject.policy
    assert subject.document == {
        "version": 1,
        "network": "foo",
        "policy": "sensor",
        "account": ACCOUNT,
        "signingKey": account_public(b"2" * 32),
        "transitKey": SENSOR_KEY,
        "keyVersion": 2,
        "hub": ["tls://hub:4222"],
        "leaf": [],
        "renewEverySeconds": 3600,
        "lifetimeSeconds": 30 * 86400,
    }


@pytest.mark.parametrize(
    ("wanted", "renew", "lifetime"),
    [
        (CredentialTimes(), timedelta(hours=1), timedelta(days=30)),
        (CredentialTimes(renew_every=timedelta(minutes=5)), timedelta(minutes=5), timedelta(days=30)),
        (CredentialTimes(lifetime=timedelta(minutes=3)), timedelta(minutes=2), timedelta(minutes=3)),
    ],
)
def test_a_network_may_set_its_own_times(wanted: CredentialTimes, renew: timedelta, lifetime: timedelta) -> None:
    assert AccessTimes.of(wanted, configuration()) == AccessTimes(renew, lifetime)


def test_only_what_is_missing_or_different_is_written() -> None:
    sensor, other = grant("sensor"), grant("other", OTHER_KEY)
    assert grant_writes([sensor, other], held(sensor, other)) == grant_writes([], held())
    writes = grant_writes([sensor, other], held(sensor))
    assert [role.name for role in writes.roles] == ["foo.factory.other"]
    assert list(writes.policies) == ["edgefarm.foo.factory.other"]
    assert list(writes.documents) == ["access/foo/factory/other"]
    changed = replace(sensor, role=replace(sensor.role, drift=("token_type",)))
    assert [role.name for role in grant_writes([sensor], held(changed)).roles] == ["foo.factory.sensor"]


def test_nothing_departs_while_everybody_stays() -> None:
    sensor = grant("sensor")
    assert departures(held(sensor), in_use(sensor), KEYS) == Departures((), (), ())


def test_when_a_whole_policy_goes_its_key_need_not_be_replaced() -> None:
    sensor, other = grant("sensor"), grant("other", OTHER_KEY)
    leaving = departures(held(sensor, other), in_use(sensor), KEYS)
    assert leaving == Departures(("foo.factory.other",), (), ("access/foo/factory/other",))


def test_when_an_account_leaves_a_policy_that_has_others_the_key_is_replaced() -> None:
    sensor, guest = grant("sensor"), grant("guest")
    leaving = departures(held(sensor, guest), in_use(sensor), KEYS)
    assert leaving == Departures(("foo.factory.guest",), (SENSOR_KEY,), ("access/foo/factory/guest",))


def test_an_account_that_moves_to_another_policy_leaves_the_first() -> None:
    sensor, moving = grant("sensor"), grant("guest")
    moved = grant("guest", OTHER_KEY)
    leaving = departures(held(sensor, moving), in_use(sensor, moved), KEYS)
    assert leaving == Departures(("foo.factory.guest",), (SENSOR_KEY,), ())
    after = held(sensor, moving).without(leaving.roles)
    writes = grant_writes([sensor, moved], after)
    assert writes.policies["edgefarm.foo.factory.guest"] == moved.policy
    assert writes.documents == {moved.path: moved.document}


def test_a_key_that_was_replaced_already_is_not_replaced_again() -> None:
    sensor, guest = grant("sensor"), grant("guest")
    replaced = {**KEYS, SENSOR_KEY: transit_key(SENSOR_KEY, b"9")}
    leaving = departures(held(sensor, guest), in_use(sensor), replaced)
    assert leaving.keys == ()
    assert leaving.documents == ("access/foo/factory/guest",)


@pytest.mark.parametrize("left", ["roles", "policies", "documents"])
def test_whatever_is_left_of_a_grant_is_found(left: str) -> None:
    complete: Any = held(grant("guest", OTHER_KEY))
    parts = {name: getattr(complete, name) if name == left else {} for name in ("roles", "policies", "documents")}
    leaving = departures(VaultGrants(**parts), {}, {})
    assert leaving.roles == (() if left == "documents" else ("foo.factory.guest",))
    assert leaving.documents == (("access/foo/factory/guest",) if left == "documents" else ())


def test_keys_of_other_networks_are_no_orphans() -> None:
    others = [
        "policy.foobar.factory.sensor",
        "leaf.foobar.plant",
        names.nack_key("foobar"),
        "account.foo",
        "leaf.SYS",
        "operator",
    ]
    found = [SENSOR_KEY, OTHER_KEY, "leaf.foo.plant", "leaf.foo.yard", names.nack_key("foo"), *others]
    gone = orphaned_keys("foo", found, [SENSOR_KEY, "leaf.foo.yard"])
    assert gone == (names.nack_key("foo"), "leaf.foo.plant", OTHER_KEY)
