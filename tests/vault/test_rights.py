"""Every right that the reconciler and a grant have, and those they must not have, tried with real logins."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.grants import grant_policy
from edgefarm.vault import Role, Vault
from edgefarm.vault.transport import Operation
from tests.vault.reviewer import TokenReviewer

KEY = names.policy_key("foo", "shop", "sensor")
DOCUMENT = names.access_document("foo", "shop", "sensor")
ROLE = names.grant_role("foo", "shop", "sensor")
POLICY = names.vault_policy(ROLE)


def grant(vault: Vault) -> str:
    return grant_policy(vault.settings, KEY, DOCUMENT)


def role() -> Role:
    return Role(ROLE, "shop", "sensor", names.DEFAULT_AUDIENCE, (POLICY,), 600)


def send(vault: Vault, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """A request that our client would never make; the mounts are written T, K and A."""
    settings = vault.settings
    mounts = {"T": settings.transit_mount, "K": settings.kv_mount, "A": f"auth/{settings.auth_mount}"}
    head, slash, tail = path.partition("/")
    return vault.transport.send(Operation("try", method), f"{mounts.get(head, head)}{slash}{tail}", body)


class TestReconciler:
    def test_manages_keys_documents_and_grants(self, controller: Vault) -> None:
        for name in (KEY, names.account_key("foo"), "controller.foo", "leaf.foo.edge"):
            controller.ensure_key(name)
            assert controller.rotate_key(name).latest_version == 2
        assert {KEY, names.account_key("foo"), names.OPERATOR_KEY} <= set(controller.keys())
        controller.write_document(DOCUMENT, {"version": 1})
        controller.write_document(DOCUMENT, {"version": 1, "more": True})
        assert controller.read_document(DOCUMENT) == {"version": 1, "more": True}
        assert controller.list_documents("access") == [DOCUMENT]
        assert controller.list_documents(names.access_document_prefix("foo")) == [DOCUMENT]
        controller.write_policy(POLICY, grant(controller))
        assert controller.policy(POLICY) == grant(controller)
        assert POLICY in controller.policies()
        controller.write_role(role())
        controller.write_role(replace(role(), token_ttl=60))
        assert controller.role(ROLE) == replace(role(), token_ttl=60)
        assert ROLE in controller.roles()
        controller.delete_role(ROLE)
        controller.delete_policy(POLICY)
        controller.delete_document(DOCUMENT)
        controller.delete_key(KEY)
        assert controller.key(KEY) is None

    def test_knows_the_operator_and_signs_with_its_signing_keys(self, controller: Vault) -> None:
        assert controller.read_document(names.OPERATOR_DOCUMENT) is not None
        for name in (*names.OPERATOR_SIGNING_KEYS, names.SYSTEM_CONTROLLER_KEY):
            key = controller.key(name)
            assert key is not None
            assert len(controller.sign(name, key.latest_version, b"claims")) == 64
        assert controller.key(names.OPERATOR_KEY) is not None
        assert controller.key(names.SYSTEM_ACCOUNT_KEY) is not None

    def test_keeps_keys_of_devices_and_never_replaces_one(self, controller: Vault) -> None:
        path = names.mesh_key_document("gateway.node-1.example")
        controller.write_document(path, {"privateKey": "x"}, create_only=True)
        refused(lambda: controller.write_document(path, {"privateKey": "y"}))
        assert controller.read_document(path) == {"privateKey": "x"}
        assert controller.list_documents(names.MESH_KEYS_FOLDER) == [path]
        controller.delete_document(path)
        assert controller.read_document(path) is None

    @pytest.mark.parametrize("key", [names.OPERATOR_KEY, names.SYSTEM_ACCOUNT_KEY, names.account_key("foo"), KEY])
    def test_cannot_sign_with_identities_or_scoped_keys(self, controller: Vault, key: str) -> None:
        refused(lambda: controller.sign(key, 1, b"claims"))

    @pytest.mark.parametrize(
        "key",
        [names.OPERATOR_KEY, *names.OPERATOR_SIGNING_KEYS, names.SYSTEM_ACCOUNT_KEY, names.SYSTEM_CONTROLLER_KEY],
    )
    def test_cannot_change_the_keys_of_the_installation(self, controller: Vault, key: str) -> None:
        refused(lambda: controller.create_key(key))
        refused(lambda: controller.rotate_key(key))
        refused(lambda: controller.delete_key(key))
        refused(lambda: send(controller, "DELETE", f"T/keys/{key}"))
        refused(lambda: send(controller, "DELETE", f"T/keys/{key}/"))
        refused(lambda: send(controller, "POST", f"T/keys/{key}/trim", {"min_available_version": 1}))

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "T/keys/policy.x.y.z", {"type": "ed25519", "exportable": True}),
            ("POST", "T/keys/policy.x.y.z", {"exportable": True}),
            ("POST", "T/keys/policy.x.y.z", {"type": "rsa-4096"}),
            ("POST", "T/keys/policy.x.y.z", {"type": "ed25519", "derived": True}),
            ("POST", "T/keys/policy.x.y.z/config", {"exportable": True}),
            ("POST", "T/keys/policy.x.y.z/config", {"allow_plaintext_backup": True}),
            ("POST", "T/keys/policy.x.y.z/import", {"type": "ed25519", "ciphertext": "x"}),
            ("POST", "T/keys/other", {"type": "ed25519"}),
            ("GET", "T/export/signing-key/policy.x.y.z", None),
            ("GET", "T/export/signing-key/operator", None),
            ("GET", "T/backup/policy.x.y.z", None),
            ("POST", "T/restore/policy.x.y.z", {"backup": "x"}),
            ("POST", "T/sign/operator/ed25519", {"input": "eA=="}),
            ("POST", "K/data/operator", {"data": {}}),
            ("DELETE", "K/metadata/operator", None),
            ("POST", "K/data/other", {"data": {}}),
            ("GET", "K/data/other", None),
            ("POST", "K/config", {"max_versions": 1}),
            ("POST", "A/config", {"kubernetes_host": "https://elsewhere"}),
            ("GET", "A/config", None),
            ("GET", "sys/mounts", None),
            ("POST", "sys/mounts/mine", {"type": "kv"}),
            ("POST", "sys/auth/mine", {"type": "approle"}),
            ("DELETE", "sys/mounts/secret", None),
            ("POST", "auth/token/create", {"policies": ["root"]}),
            ("GET", "auth/token/lookup-self", None),
            ("GET", "secret/data/x", None),
            ("GET", "sys/policies/acl/default", None),
            ("PUT", "sys/policies/acl/networkcontroller", {"policy": 'path "*" { capabilities = ["sudo"] }'}),
            ("DELETE", "sys/policies/acl/networkcontroller", None),
            ("PUT", "sys/policy/edgefarm.x", {"policy": ""}),
        ],
    )
    def test_can_do_nothing_else(self, controller: Vault, method: str, path: str, body: dict[str, Any] | None) -> None:
        refused(lambda: send(controller, method, path, body))

    @pytest.mark.parametrize(
        "name",
        ["networkcontroller", "Networkcontroller", "networkController", "NETWORKCONTROLLER", "networkcontrolleR"],
    )
    def test_cannot_touch_its_own_role_in_any_spelling(self, controller: Vault, admin: Vault, name: str) -> None:
        before = admin.role(names.CONTROLLER_ROLE)
        refused(lambda: controller.write_role(replace(role(), name=name)))
        refused(lambda: controller.delete_role(name))
        assert admin.role(names.CONTROLLER_ROLE) == before

    @pytest.mark.parametrize(
        "change",
        [
            {"token_policies": "networkcontroller"},
            {"token_policies": "edgefarm.a,networkcontroller"},
            {"token_policies": ["edgefarm.a"]},
            {"token_policies": ["networkcontroller"]},
            {"policies": "networkcontroller"},
            {"token_type": "service"},
            {"bound_service_account_names": "*"},
            {"bound_service_account_names": ["*"]},
            {"bound_service_account_namespaces": "a,b"},
            {"bound_service_account_namespace_selector": "{}"},
            {"audience": ""},
        ],
    )
    def test_cannot_give_a_role_more_than_one_account_and_our_policies(
        self, controller: Vault, change: dict[str, Any]
    ) -> None:
        controller.write_role(role())
        refused(lambda: send(controller, "POST", f"A/role/{ROLE}", change))
        assert controller.role(ROLE) == role()

    @pytest.mark.parametrize(
        "extra",
        [
            'path "sys/policies/acl/networkcontroller" { capabilities = ["update"] }',
            'path "/sys/policies/acl/networkcontroller" { capabilities = ["update"] }',
            r'path "\x73ys/policies/acl/networkcontroller" { capabilities = ["update"] }',
            'path "*" { capabilities = ["read"] }',
            'path "+/policies/acl/networkcontroller" { capabilities = ["update"] }',
            'path "{{identity.entity.name}}/mounts" { capabilities = ["read"] }',
            'path "auth/token/create" { capabilities = ["update"] }',
            'path "secret/data/x" { capabilities = ["create"] }',
            'path "secret/data/x" { policy = "write" }',
            'path "secret/data/x" { policy = "sudo" }',
            'path "T/sign/operator" { capabilities = ["update"] }',
            'path "T/sign/account.SYS" { capabilities = ["update"] }',
            'path "T/keys/operator/config" { capabilities = ["update"] }',
            'path "T/export/signing-key/operator" { capabilities = ["read"] }',
            'path "K/data/operator" { capabilities = ["update"] }',
        ],
    )
    def test_cannot_write_a_policy_with_wider_rights_than_a_grant_has(self, controller: Vault, extra: str) -> None:
        text = grant(controller)
        extra = extra.replace('"T/', f'"{controller.settings.transit_mount}/')
        extra = extra.replace('"K/', f'"{controller.settings.kv_mount}/')
        refused(lambda: controller.write_policy(POLICY, extra))
        refused(lambda: controller.write_policy(POLICY, text + extra))
        refused(lambda: controller.write_policy(POLICY, base64.b64encode(extra.encode()).decode()))
        refused(lambda: controller.write_policy(POLICY, text.replace(f"sign/{KEY}", "sign/operator")))

    @pytest.mark.parametrize(
        "names_like", ["sys", "list", "auth", "operator", "create", "keys", "networkcontroller", "x-" * 31 + "x"]
    )
    def test_can_write_the_grants_of_networks_with_odd_names(self, controller: Vault, names_like: str) -> None:
        key = names.policy_key(names_like, names_like, names_like)
        document = names.access_document(names_like, names_like, names_like)
        name = names.grant_role(names_like, names_like, names_like)
        for key_name in (key, f"leaf.{names_like}.{names_like}"):
            controller.write_policy(names.vault_policy(name), grant_policy(controller.settings, key_name, document))
        controller.write_role(
            Role(name, names_like, names_like, names.DEFAULT_AUDIENCE, (names.vault_policy(name),), 600)
        )
        controller.create_key(key)
        controller.write_document(document, {})

    def test_reaches_no_other_installation_in_the_same_vault(self, controller: Vault, vault: Vault) -> None:
        others = replace(
            controller.settings, transit_mount=vault.settings.transit_mount, kv_mount=vault.settings.kv_mount
        )
        refused(lambda: send(controller, "LIST", f"{others.transit_mount}/keys"))
        refused(lambda: send(controller, "POST", f"{others.transit_mount}/keys/{KEY}", {"type": "ed25519"}))
        refused(lambda: send(controller, "GET", f"{others.kv_mount}/data/{DOCUMENT}"))
        refused(lambda: send(controller, "LIST", f"auth/{vault.settings.auth_mount}/role"))


class TestGrant:
    @pytest.fixture
    def sidecar(self, admin: Vault, controller: Vault, reviewer: TokenReviewer) -> Vault:
        """A sidecar's login, granted by the reconciler itself."""
        for key in (KEY, names.policy_key("foo", "shop", "other")):
            controller.ensure_key(key)
        controller.write_document(DOCUMENT, {"version": 1})
        controller.write_document(names.access_document("foo", "shop", "other"), {"version": 1})
        controller.write_policy(POLICY, grant(controller))
        controller.write_role(role())
        client = Vault(admin.settings)
        assert client.login(ROLE, reviewer.token("shop", "sensor")) == timedelta(seconds=600)
        return client

    def test_signs_with_its_key_and_reads_its_document(self, sidecar: Vault) -> None:
        assert len(sidecar.sign(KEY, 1, b"claims")) == 64
        assert sidecar.read_document(DOCUMENT) == {"version": 1}

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "T/sign/policy.foo.shop.other", {"input": "eA=="}),
            ("POST", "T/sign/operator-signing-1", {"input": "eA=="}),
            ("POST", "T/sign/account.SYS", {"input": "eA=="}),
            ("GET", f"T/keys/{KEY}", None),
            ("POST", f"T/keys/{KEY}/rotate", {}),
            ("DELETE", f"T/keys/{KEY}", None),
            ("GET", f"T/export/signing-key/{KEY}", None),
            ("LIST", "T/keys", None),
            ("GET", "K/data/access/foo/shop/other", None),
            ("GET", "K/data/operator", None),
            ("POST", f"K/data/{DOCUMENT}", {"data": {}}),
            ("DELETE", f"K/metadata/{DOCUMENT}", None),
            ("LIST", "K/metadata/access", None),
            ("GET", f"A/role/{ROLE}", None),
            ("GET", "auth/token/lookup-self", None),
            ("GET", f"sys/policies/acl/{POLICY}", None),
        ],
    )
    def test_can_do_nothing_else(self, sidecar: Vault, method: str, path: str, body: dict[str, Any] | None) -> None:
        refused(lambda: send(sidecar, method, path, body))

    @pytest.mark.parametrize(
        ("namespace", "account", "options"),
        [
            ("shop", "other", {}),
            ("elsewhere", "sensor", {}),
            ("shop", "sensor", {"audience": "https://kubernetes.default.svc"}),
            ("shop", "sensor", {"lifetime": timedelta(minutes=-5)}),
        ],
        ids=["other account", "other namespace", "wrong audience", "expired"],
    )
    def test_is_for_one_service_account_with_a_valid_token_only(
        self, sidecar: Vault, reviewer: TokenReviewer, namespace: str, account: str, options: dict[str, Any]
    ) -> None:
        token = reviewer.token(namespace, account, **options)
        with pytest.raises(VaultRefused, match=ROLE) as caught:
            Vault(sidecar.settings).login(ROLE, token)
        assert caught.value.status == 403
        assert token not in str(caught.value)

    def test_ends_with_its_policy_at_once_though_batch_tokens_live_on(self, sidecar: Vault, controller: Vault) -> None:
        controller.delete_role(ROLE)
        assert len(sidecar.sign(KEY, 1, b"claims")) == 64
        controller.delete_policy(POLICY)
        refused(lambda: sidecar.sign(KEY, 1, b"claims"))


def refused(call: Callable[[], object]) -> None:
    """Vault says no for lack of permission, not for another reason."""
    with pytest.raises(VaultRefused) as caught:
        call()
    assert caught.value.status == 403, str(caught.value)
