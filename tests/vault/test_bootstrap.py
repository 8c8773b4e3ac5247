"""The bootstrap against a real OpenBao: its result, its repetition, and its death after any request."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edgefarm import names
from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.nats import jwt, nkeys
from edgefarm.vault import KubernetesAuth, TransitKey, Vault, VaultSettings, VaultSetup
from localcluster.process import accepts
from localcluster.stack import Authority, NatsServer, OpenBao
from reconciler import bootstrap_command
from reconciler.bootstrap import BootstrapResult, BootstrapSettings
from reconciler.controller_grant import CONTROLLER_TOKEN_TTL
from tests.vault.conftest import NOW, await_documents, run_bootstrap
from tests.vault.reviewer import TokenReviewer

ALL_KEYS = sorted(
    [
        names.OPERATOR_KEY,
        *names.OPERATOR_SIGNING_KEYS,
        names.SYSTEM_ACCOUNT_KEY,
        names.SYSTEM_CONTROLLER_KEY,
        names.SYSTEM_LEAF_KEY,
    ]
)


class DiedError(Exception):
    """The process of the bootstrap ended here."""


def dying_vault(settings: VaultSettings, token: str, *, last: int) -> Vault:
    """A client whose process ends after Vault has done the n-th request and before the answer is read.

    Dying before the n-th request is sent leaves the same behind as dying after the one before it.
    """
    numbers = itertools.count(1)

    def die(_kind: str, _status: int | None) -> None:
        if next(numbers) == last:
            raise DiedError

    return Vault(settings, token=token, on_request=die)


def test_the_operator_signs_itself_and_a_signing_key_signs_the_system_account(
    admin: Vault, bootstrap_settings: BootstrapSettings
) -> None:
    result = run_bootstrap(admin, bootstrap_settings)
    operator, system = jwt.decode(result.operator_jwt), jwt.decode(result.system_account_jwt)
    assert operator["iss"] == operator["sub"] == result.operator == operator_key(admin, names.OPERATOR_KEY)
    assert operator["iat"] == int(NOW.timestamp())
    assert operator["nats"]["signing_keys"] == list(result.signing_keys)
    assert operator["nats"]["strict_signing_key_usage"] is True
    assert operator["nats"]["system_account"] == system["sub"] == result.system_account
    assert system["iss"] == operator_key(admin, names.OPERATOR_SIGNING_KEYS[0])
    keys = {key["role"]: key["kind"] for key in system["nats"]["signing_keys"]}
    assert keys == {"controller": "user_scope", "leaf": "user_scope"}
    assert admin.read_document(names.OPERATOR_DOCUMENT) == result.document()
    assert admin.keys() == ALL_KEYS


def test_a_second_run_finds_everything_and_writes_nothing(admin: Vault, bootstrap_settings: BootstrapSettings) -> None:
    first, writes = run_bootstrap(admin, bootstrap_settings), admin.writes
    assert run_bootstrap(admin, bootstrap_settings) == first
    assert admin.writes == writes


def test_a_nats_server_accepts_the_configuration(
    admin: Vault, bootstrap_settings: BootstrapSettings, authority: Authority, work: Path
) -> None:
    config = run_bootstrap(admin, bootstrap_settings).nats_config(str(work / "resolver"))
    server = NatsServer.start(work, authority, auth=config)
    assert accepts("127.0.0.1", int(server.url.rpartition(":")[2]))
    server.stop()


def test_a_run_that_died_anywhere_is_completed_by_the_next(
    openbao: OpenBao, fresh_settings: Callable[[], VaultSettings], bootstrap_settings: BootstrapSettings
) -> None:
    whole = Vault(fresh_settings(), token=openbao.root_token)
    run_bootstrap(whole, bootstrap_settings)
    assert whole.requests.total() > 15
    for last in range(1, whole.requests.total() + 1):
        settings = fresh_settings()
        # How many requests a whole run takes varies, as it waits for the new KV mount: the last number may be too high.
        with contextlib.suppress(DiedError):
            run_bootstrap(dying_vault(settings, openbao.root_token, last=last), bootstrap_settings)
        vault = Vault(settings, token=openbao.root_token)
        await_documents(vault)
        kept = all_keys(vault)
        stored = vault.read_document(names.OPERATOR_DOCUMENT)
        result = run_bootstrap(vault, bootstrap_settings)
        keys = all_keys(vault)
        assert sorted(keys) == ALL_KEYS
        assert kept.items() <= keys.items()
        assert result.document() == vault.read_document(names.OPERATOR_DOCUMENT)
        assert stored in (None, result.document())
        writes = vault.writes
        assert run_bootstrap(vault, bootstrap_settings) == result
        assert vault.writes == writes


def test_two_runs_at_once_agree_on_one_operator(
    openbao: OpenBao, fresh_settings: Callable[[], VaultSettings], bootstrap_settings: BootstrapSettings
) -> None:
    settings = fresh_settings()
    VaultSetup(Vault(settings, token=openbao.root_token)).ensure_mounts()

    def run(_number: int) -> BootstrapResult:
        return run_bootstrap(Vault(settings, token=openbao.root_token), bootstrap_settings)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(run, range(4)))) == 1


def test_the_reconciler_can_log_in_for_a_bounded_time(admin: Vault, reviewer: TokenReviewer) -> None:
    client = Vault(admin.settings)
    lease = client.login(names.CONTROLLER_ROLE, reviewer.token("network", "network-controller"))
    assert lease.total_seconds() == CONTROLLER_TOKEN_TTL
    assert client.read_document(names.OPERATOR_DOCUMENT) is not None


def test_changed_rights_and_a_moved_api_server_are_put_right_by_another_run(
    admin: Vault, bootstrap_settings: BootstrapSettings
) -> None:
    result = run_bootstrap(admin, bootstrap_settings)
    role = admin.role(names.CONTROLLER_ROLE)
    assert role is not None
    admin.write_role(replace(role, service_account="intruder"))
    admin.write_policy(names.CONTROLLER_ROLE, 'path "*" { capabilities = ["sudo"] }')
    VaultSetup(admin).configure_auth(KubernetesAuth("https://elsewhere.invalid", bootstrap_settings.kubernetes.ca_pem))
    assert run_bootstrap(admin, bootstrap_settings) == result
    assert admin.role(names.CONTROLLER_ROLE) == role
    text = admin.policy(names.CONTROLLER_ROLE)
    assert text is not None
    assert "sudo" not in text.replace('*\\"sudo\\"*', "")


def test_a_mount_of_another_kind_is_left_alone(
    openbao: OpenBao, fresh_settings: Callable[[], VaultSettings], bootstrap_settings: BootstrapSettings
) -> None:
    taken = fresh_settings()
    vault = Vault(taken, token=openbao.root_token)
    run_bootstrap(vault, bootstrap_settings)
    crossed = Vault(replace(taken, kv_mount=taken.transit_mount), token=openbao.root_token)
    with pytest.raises(VaultRefused, match="taken by something else"):
        run_bootstrap(crossed, bootstrap_settings)


def test_a_lost_operator_key_is_reported_and_never_replaced_silently(
    admin: Vault, bootstrap_settings: BootstrapSettings
) -> None:
    admin.delete_key(names.OPERATOR_KEY)
    with pytest.raises(VaultRefused, match="does not belong to the keys"):
        run_bootstrap(admin, bootstrap_settings)


def test_a_damaged_operator_document_is_reported(admin: Vault, bootstrap_settings: BootstrapSettings) -> None:
    admin.write_document(names.OPERATOR_DOCUMENT, {"operator": "O"})
    with pytest.raises(VaultRefused, match="cannot be read"):
        run_bootstrap(admin, bootstrap_settings)


def test_rotating_a_signing_key_by_mistake_does_not_change_the_operator(
    admin: Vault, bootstrap_settings: BootstrapSettings
) -> None:
    result = run_bootstrap(admin, bootstrap_settings)
    admin.rotate_key(names.OPERATOR_SIGNING_KEYS[0])
    assert run_bootstrap(admin, bootstrap_settings) == result


def all_keys(vault: Vault) -> dict[str, TransitKey | None]:
    found = vault.keys()
    return {name: vault.key(name) for name in found}


def operator_key(vault: Vault, name: str) -> str:
    key = vault.key(name)
    assert key is not None
    return nkeys.encode_public(nkeys.Prefix.OPERATOR, key.latest.public_key)


class TestCommand:
    @pytest.fixture
    def arguments(
        self, fresh_settings: Callable[[], VaultSettings], openbao: OpenBao, kubernetes: KubernetesAuth, work: Path
    ) -> list[str]:
        settings = fresh_settings()
        (work / "kubernetes.crt").write_text(kubernetes.ca_pem)
        (work / "reviewer").write_text("reviewer-token\n")
        return [
            *("--vault-addr", settings.address, "--vault-ca", str(openbao.ca)),
            *("--auth-mount", settings.auth_mount, "--transit-mount", settings.transit_mount),
            *("--kv-mount", settings.kv_mount, "--kubernetes-host", kubernetes.host),
            *("--kubernetes-ca", str(work / "kubernetes.crt"), "--reviewer-token-file", str(work / "reviewer")),
        ]

    def run(self, arguments: list[str], environ: dict[str, str]) -> int:
        parser = argparse.ArgumentParser()
        bootstrap_command.add_arguments(parser)
        return bootstrap_command.run(parser.parse_args(arguments), environ)

    def test_prints_the_configuration_and_reports_on_stderr(
        self, arguments: list[str], openbao: OpenBao, capsys: pytest.CaptureFixture[str], work: Path
    ) -> None:
        environ = {"VAULT_TOKEN": openbao.root_token}
        assert self.run([*arguments, "--nats-resolver-dir", "/data/jwt"], environ) == 0
        out, err = capsys.readouterr()
        assert out.startswith("operator: ")
        assert 'dir: "/data/jwt"' in out
        assert "done" in err
        assert openbao.root_token not in out + err
        assert (
            self.run([*arguments, "--nats-resolver-dir", "/data/jwt", "--nats-config", str(work / "c")], environ) == 0
        )
        assert (work / "c").read_text() == out
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("environ", "extra", "sentence"),
        [
            ({}, [], "VAULT_TOKEN or BAO_TOKEN is not set"),
            ({"BAO_TOKEN": "wrong"}, [], "permission denied"),
            ({"BAO_TOKEN": "x"}, ["--service-account", "nobody"], "write NAMESPACE/NAME"),
            ({"BAO_TOKEN": "x"}, ["--vault-ca", "/nowhere"], "/nowhere"),
            ({"BAO_TOKEN": "x"}, ["--vault-addr", "https://127.0.0.1:1"], "does not answer"),
        ],
        ids=["no token", "wrong token", "bad account", "no file", "no server"],
    )
    def test_fails_with_one_sentence(
        self,
        arguments: list[str],
        environ: dict[str, str],
        extra: list[str],
        sentence: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.run([*arguments, *extra], environ) == 1
        assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_unreachable_vault_is_unavailable(
    bootstrap_settings: BootstrapSettings, fresh_settings: Callable[[], VaultSettings]
) -> None:
    with pytest.raises(VaultUnavailable):
        run_bootstrap(Vault(replace(fresh_settings(), address="https://127.0.0.1:1"), token="x"), bootstrap_settings)
