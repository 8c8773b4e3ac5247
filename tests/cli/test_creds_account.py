"""`edgefarm creds` without `--account`: the account comes from the Network's status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgefarm import names
from edgefarm.nats import creds, jwt
from localcluster.stack import Authority, OpenBao
from tests.cli.conftest import Cluster, Ended, ready
from tests.conftest import mounted_vault
from tests.vault.reviewer import TokenReviewer

Run = Callable[..., Ended]


def test_the_account_is_that_of_the_network(
    cluster: Cluster, ask: Run, openbao: OpenBao, authority: Authority, reviewer: TokenReviewer, tmp_path: Path
) -> None:
    cluster.network("plant")
    vault = mounted_vault(openbao, authority, reviewer, "cli-account")
    vault.ensure_key(names.policy_key("plant", cluster.namespace, "viewer"))
    (tmp_path / "ca.crt").write_text(authority.pem)
    ended = ask(
        *("creds", "plant", "--policy", "viewer", "-n", cluster.namespace, "--out", "-"),
        *("--transit-mount", vault.settings.transit_mount),
        VAULT_ADDR=openbao.address,
        VAULT_TOKEN=openbao.root_token,
        VAULT_CACERT=str(tmp_path / "ca.crt"),
    )
    assert ended.status == 0, ended
    assert jwt.decode(creds.parse_creds(ended.out)[0])["nats"]["issuer_account"] == "A" * 56


def test_a_network_that_has_none_yet_or_is_not_there_is_named(cluster: Cluster, ask: Run) -> None:
    cluster.network("new", {"conditions": [ready("False", "VaultUnavailable", "Vault is sealed")]})
    login = {"VAULT_ADDR": "https://127.0.0.1:9", "VAULT_TOKEN": "x"}
    ended = ask("creds", "new", "--policy", "viewer", "-n", cluster.namespace, **login)
    assert (ended.status, ended.err) == (
        1,
        "edgefarm: network 'new' has no account yet: `edgefarm status new` says what it waits for\n",
    )
    ended = ask("creds", "old", "--policy", "viewer", "-n", cluster.namespace, **login)
    assert ended.status == 1
    assert f"there is no network 'old' in namespace '{cluster.controller}'" in ended.err
