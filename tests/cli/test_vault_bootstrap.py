"""`edgefarm vault bootstrap` and `nats config`: with exactly the printed rights, as often as one likes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.vault_policies import bootstrap_policy
from edgefarm.errors import VaultRefused
from edgefarm.vault import KubernetesAuth, Vault, VaultSettings
from localcluster.stack import Authority, OpenBao
from reconciler.bootstrap import BootstrapSettings, bootstrap
from tests.cli.conftest import Ended, make_token
from tests.conftest import running_openbao
from tests.vault.reviewer import TokenReviewer

Run = Callable[..., Ended]


@dataclass(frozen=True)
class Administration:
    """An OpenBao of its own, because the policy `networkcontroller` is one for the whole server."""

    root: Vault
    authority: Authority
    kubernetes: KubernetesAuth

    def settings(self, area: str) -> VaultSettings:
        """Mounts that nobody else uses."""
        mounts = {f"{kind}_mount": f"{area}-{kind}" for kind in ("auth", "transit", "kv")}
        return replace(self.root.settings, **mounts)  # type: ignore[arg-type]

    def bootstrap(self, settings: VaultSettings, policy: str, name: str) -> None:
        """Run the bootstrap with a token that has this policy and nothing else."""
        self.root.write_policy(name, policy)
        vault = Vault(settings, token=make_token(self.root, name))
        wanted = BootstrapSettings(self.kubernetes, "network", "network-controller")
        try:
            bootstrap(vault, wanted, now=datetime.now(UTC), random=lambda: name)
        finally:
            vault.close()


@pytest.fixture(scope="module")
def administration(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, reviewer: TokenReviewer
) -> Iterator[Administration]:
    with running_openbao(tmp_path_factory, authority) as server:
        root = _root(server, authority)
        yield Administration(root, authority, KubernetesAuth(host=reviewer.url, ca_pem=reviewer.ca_pem))
        root.close()


def _root(server: OpenBao, authority: Authority) -> Vault:
    return Vault(VaultSettings(server.address, authority.pem), token=server.root_token)


def test_the_printed_rights_are_enough_for_the_command_and_for_its_repetition(
    administration: Administration, edgefarm: Run, tmp_path: Path
) -> None:
    settings = administration.settings("enough")
    mounts = ("--auth-mount", "enough-auth", "--transit-mount", "enough-transit", "--kv-mount", "enough-kv")
    printed = edgefarm("vault", "bootstrap", "--print-policy", *mounts)
    assert (printed.status, printed.out) == (0, bootstrap_policy(settings))
    administration.root.write_policy("administrator", printed.out)
    token = make_token(administration.root, "administrator")
    ca, kubernetes_ca = tmp_path / "ca.crt", tmp_path / "kubernetes.crt"
    ca.write_text(administration.authority.pem)
    kubernetes_ca.write_text(administration.kubernetes.ca_pem)
    command = (
        *("vault", "bootstrap", "--vault-addr", settings.address, "--vault-ca", str(ca), *mounts),
        *("--kubernetes-host", administration.kubernetes.host, "--kubernetes-ca", str(kubernetes_ca)),
    )
    first = edgefarm(*command, VAULT_TOKEN=token)
    assert first.status == 0, first
    assert "done, 13 changes" in first.err
    again = edgefarm(*command, VAULT_TOKEN=token)
    assert again.status == 0
    assert "done, 0 changes" in again.err
    assert again.out == first.out
    login = {"VAULT_ADDR": settings.address, "VAULT_TOKEN": token, "VAULT_CACERT": str(ca)}
    shown = edgefarm("nats", "config", "--kv-mount", "enough-kv", **login)
    assert (shown.status, shown.out) == (0, first.out)


def test_none_of_the_printed_rights_is_more_than_needed(administration: Administration) -> None:
    def lives_without(number: int) -> str | None:
        settings = administration.settings(f"less-{number}")
        rules = re.findall(r"path .*?\n}\n", bootstrap_policy(settings), re.DOTALL)
        try:
            administration.bootstrap(settings, "".join(rules[:number] + rules[number + 1 :]), f"less-{number}")
        except VaultRefused:
            return None
        return str(rules[number])

    count = bootstrap_policy(administration.root.settings).count("path ")
    with ThreadPoolExecutor(4) as pool:
        assert [rule for rule in pool.map(lives_without, range(count)) if rule is not None] == []


def test_the_configuration_of_a_vault_without_operator_is_refused_with_what_to_do(
    administration: Administration, edgefarm: Run, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_text(administration.authority.pem)
    ended = edgefarm(
        *("nats", "config", "--kv-mount", "nowhere"),
        VAULT_ADDR=administration.root.settings.address,
        VAULT_TOKEN=make_token(administration.root, "root"),
        VAULT_CACERT=str(tmp_path / "ca.crt"),
    )
    assert ended.status == 3
    assert "run `edgefarm vault bootstrap` once" in ended.err


def test_the_bootstrap_without_a_token_says_so(edgefarm: Run, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("")
    required = ("--vault-addr", "https://127.0.0.1:9", "--kubernetes-host", "https://k", "--kubernetes-ca", "ca.crt")
    ended = edgefarm("vault", "bootstrap", *required)
    assert ended.status == 1
    assert "VAULT_TOKEN or BAO_TOKEN is not set" in ended.err
