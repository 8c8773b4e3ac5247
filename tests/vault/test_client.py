"""The client against a real OpenBao: keys, documents, grants, counters, many threads."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edgefarm.errors import VaultRefused
from edgefarm.grants import grant_policy
from edgefarm.vault import Role, Vault
from edgefarm.vault.transport import Operation
from tests.vault.reviewer import TokenReviewer

ROLE = Role("foo.shop.sensor", "shop", "sensor", "edgefarm-network", ("edgefarm.foo.shop.sensor",), 600)


def test_a_missing_key_is_made_once_and_found_again(vault: Vault) -> None:
    assert vault.key("policy.made.a.b") is None
    made = vault.ensure_key("policy.made.a.b")
    writes = vault.writes
    assert vault.ensure_key("policy.made.a.b") == made
    assert vault.key("policy.made.a.b") == made
    assert vault.writes == writes
    assert made.latest_version == 1
    assert len(made.latest.public_key) == 32
    assert made.latest.created.tzinfo is UTC
    assert abs(datetime.now(UTC) - made.latest.created) < timedelta(minutes=1)
    assert vault.keys().count("policy.made.a.b") == 1


def test_creating_a_key_takes_one_request_and_leaves_an_existing_one_alone(vault: Vault) -> None:
    before = vault.requests
    made = vault.create_key("policy.one.request.x")
    assert vault.requests - before == Counter({"write transit key": 1})
    assert vault.create_key("policy.one.request.x") == made


def test_every_version_signs_what_its_public_key_verifies(vault: Vault) -> None:
    vault.ensure_key("policy.sign.a.b")
    key = vault.rotate_key("policy.sign.a.b")
    assert key.latest_version == 2
    assert sorted(key.versions) == [1, 2]
    writes = vault.writes
    for version, public in key.versions.items():
        signature = vault.sign(key.name, version, b"header.body")
        Ed25519PublicKey.from_public_bytes(public.public_key).verify(signature, b"header.body")
    assert vault.writes == writes


def test_a_deleted_key_is_gone_and_deleting_it_again_is_fine(vault: Vault) -> None:
    vault.ensure_key("policy.deleted.a.b")
    vault.delete_key("policy.deleted.a.b")
    assert vault.key("policy.deleted.a.b") is None
    vault.delete_key("policy.deleted.a.b")


@pytest.mark.parametrize(
    ("parameters", "word"),
    [({"type": "rsa-2048"}, "rsa-2048"), ({"type": "ed25519", "exportable": True}, "exportable")],
)
def test_a_key_that_somebody_else_made_in_another_way_is_refused(
    vault: Vault, parameters: dict[str, object], word: str
) -> None:
    make_by_hand(vault, f"{vault.settings.transit_mount}/keys/policy.foreign.{word}", parameters)
    with pytest.raises(VaultRefused, match=word):
        vault.ensure_key(f"policy.foreign.{word}")


def test_signing_with_an_absent_key_is_refused_with_vaults_own_words(vault: Vault) -> None:
    with pytest.raises(VaultRefused, match="signing key not found") as caught:
        vault.sign("policy.absent.a.b", 1, b"x")
    assert caught.value.status == 400


def test_a_document_is_read_as_it_was_written_until_it_is_deleted(vault: Vault) -> None:
    path = "access/foo/shop/sensor"
    assert vault.read_document(path) is None
    vault.write_document(path, {"version": 1, "hub": ["tls://a:4222"]})
    vault.write_document(path, {"version": 1, "hub": ["tls://b:4222"]})
    assert vault.read_document(path) == {"version": 1, "hub": ["tls://b:4222"]}
    vault.delete_document(path)
    assert vault.read_document(path) is None
    vault.delete_document(path)


def test_create_only_never_replaces_a_document(vault: Vault) -> None:
    vault.write_document("once", {"a": 1}, create_only=True)
    with pytest.raises(VaultRefused, match="check-and-set") as caught:
        vault.write_document("once", {"a": 2}, create_only=True)
    assert caught.value.status == 400
    assert vault.read_document("once") == {"a": 1}


def test_documents_are_listed_through_all_folders_below(vault: Vault) -> None:
    for path in ("listed/x/a/1", "listed/x/a/2", "listed/x/b", "listed/y/c"):
        vault.write_document(path, {})
    assert vault.list_documents("listed/x") == ["listed/x/a/1", "listed/x/a/2", "listed/x/b"]
    assert vault.list_documents("listed/nobody") == []
    assert set(vault.list_documents("listed")) <= set(vault.list_documents(""))


def test_a_role_reads_back_equal_to_what_was_written(vault: Vault) -> None:
    assert vault.role(ROLE.name) is None
    vault.write_role(ROLE)
    assert vault.role(ROLE.name) == ROLE
    assert ROLE.name in vault.roles()
    changed = replace(ROLE, policies=("edgefarm.a", "edgefarm.b"), token_ttl=60)
    vault.write_role(changed)
    assert vault.role(ROLE.name) == changed
    vault.delete_role(ROLE.name)
    assert vault.role(ROLE.name) is None
    vault.delete_role(ROLE.name)
    assert ROLE.name not in vault.roles()


@pytest.mark.parametrize(
    "change",
    [
        {"bound_service_account_names": ["sensor", "intruder"]},
        {"bound_service_account_namespaces": "*"},
        {"audience": "other"},
        {"token_policies": ["edgefarm.foo.shop.sensor", "root-like"]},
        {"token_ttl": 60},
        {"token_max_ttl": 86400},
        {"token_type": "service"},
        {"token_no_default_policy": False},
        {"token_num_uses": 3, "token_type": "service"},
        {"token_period": 60, "token_type": "service"},
        {"token_bound_cidrs": ["10.0.0.0/8"]},
        {"alias_name_source": "serviceaccount_name"},
        {"bound_service_account_namespace_selector": '{"matchLabels": {"a": "b"}}'},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_role_that_somebody_changed_differs_and_is_mended_by_writing_it(
    vault: Vault, change: dict[str, object]
) -> None:
    role = replace(ROLE, name=f"drift.{next(iter(change)).replace('_', '-')}.x")
    vault.write_role(role)
    make_by_hand(vault, f"auth/{vault.settings.auth_mount}/role/{role.name}", change)
    assert vault.role(role.name) != role
    vault.write_role(role)
    assert vault.role(role.name) == role
    vault.delete_role(role.name)


def test_a_policy_reads_back_as_the_same_text(vault: Vault) -> None:
    text = grant_policy(vault.settings, "policy.foo.shop.sensor", "access/foo/shop/sensor")
    assert vault.policy("edgefarm.same.text.x") is None
    vault.write_policy("edgefarm.same.text.x", text)
    assert vault.policy("edgefarm.same.text.x") == text
    assert "edgefarm.same.text.x" in vault.policies()
    vault.delete_policy("edgefarm.same.text.x")
    vault.delete_policy("edgefarm.same.text.x")
    assert vault.policy("edgefarm.same.text.x") is None


def test_a_policy_with_a_syntax_error_is_refused_with_vaults_reason(vault: Vault) -> None:
    with pytest.raises(VaultRefused, match="parse") as caught:
        vault.write_policy("edgefarm.broken", 'path "x" {')
    assert caught.value.status == 400


def test_counters_tell_reads_from_writes_and_the_hook_sees_every_request(vault: Vault) -> None:
    seen: list[tuple[str, int | None]] = []
    client = Vault(vault.settings, token="bad", on_request=lambda kind, status: seen.append((kind, status)))
    with pytest.raises(VaultRefused):
        client.write_document("counted", {})
    with pytest.raises(VaultRefused):
        client.keys()
    assert client.requests == Counter({"write document": 1, "list transit keys": 1})
    assert client.writes == 1
    assert seen == [("write document", 403), ("list transit keys", 403)]


def test_sixteen_threads_share_a_client_while_the_login_is_replaced(vault: Vault, reviewer: TokenReviewer) -> None:
    text = grant_policy(vault.settings, "policy.threads.a.b", "access/threads/a/b")
    vault.write_policy("edgefarm.threads.a.b", text)
    vault.write_role(Role("threads.a.b", "a", "b", "edgefarm-network", ("edgefarm.threads.a.b",), 600))
    key = vault.ensure_key("policy.threads.a.b")
    client = Vault(vault.settings)
    client.login("threads.a.b", reviewer.token("a", "b"))

    def work(number: int) -> None:
        if number % 20 == 0:
            client.login("threads.a.b", reviewer.token("a", "b"))
        data = f"message {number}".encode()
        signature = client.sign(key.name, 1, data)
        Ed25519PublicKey.from_public_bytes(key.latest.public_key).verify(signature, data)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(200)))
    assert client.requests == Counter({"sign": 200, "log in": 11})
    assert client.writes == 0
    vault.delete_role("threads.a.b")


def make_by_hand(vault: Vault, path: str, body: dict[str, object]) -> None:
    """Write what our client cannot, as an administrator with another tool would."""
    vault.transport.send(Operation("write by hand", "POST", write=True), path, body)
