"""`edgefarm creds`: a person with exactly the printed Vault policy gets exactly a Policy's rights, for a short time."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats.errors
import pytest

from cli.credentials import Order, issue
from edgefarm import names
from edgefarm.errors import VaultRefused
from edgefarm.nats import creds, jwt, nkeys
from edgefarm.nats.nkeys import KeyPair, Prefix
from edgefarm.nats.templates import template_of_policy
from edgefarm.vault import Vault
from localcluster.stack import Authority, OpenBao
from tests.cli.conftest import Ended, make_token
from tests.conftest import mounted_vault
from tests.natskit import Connection, Hub, LocalAccount, LocalOperator
from tests.vault.reviewer import TokenReviewer

Run = Callable[..., Ended]
_KEY = names.policy_key("plant", "shop", "viewer")
_TRANSIT = "cli-transit"


@pytest.fixture(scope="module")
def vault(openbao: OpenBao, authority: Authority, reviewer: TokenReviewer) -> Vault:
    """An administrator's client; the Policy shop/viewer of network plant has its key."""
    client = mounted_vault(openbao, authority, reviewer, "cli")
    client.ensure_key(_KEY)
    return client


@dataclass(frozen=True)
class Plant:
    """A hub that knows the network's account, in which the Policy may subscribe to sensor.> and publish viewer.>."""

    hub: Hub
    account: LocalAccount


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, authority: Authority, vault: Vault) -> Iterator[Plant]:
    operator = LocalOperator()
    account = operator.account("plant")
    key = vault.key(_KEY)
    assert key is not None
    public = nkeys.encode_public(Prefix.ACCOUNT, key.latest.public_key)
    account.keys["viewer"] = (KeyPair(public, ""), template_of_policy(["viewer.>"], ["sensor.>"], [], []))
    folder = tmp_path_factory.mktemp("hub")
    resolver = folder / "hub-0" / "accounts"
    resolver.mkdir(parents=True)
    (resolver / f"{account.public}.jwt").write_text(account.token())
    hub = Hub.start(folder, authority, operator)
    yield Plant(hub, account)
    hub.stop()


@pytest.fixture
def person(vault: Vault, edgefarm: Run, authority: Authority, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody whose Vault token has the printed policy and nothing else."""
    printed = edgefarm("vault", "policy", "plant", "--policy", "viewer", "-n", "shop", "--transit-mount", _TRANSIT)
    assert printed.status == 0
    vault.write_policy("plant-viewer", printed.out)
    ca = tmp_path / "ca.crt"
    ca.write_text(authority.pem)
    return {
        "VAULT_ADDR": vault.settings.address,
        "VAULT_TOKEN": make_token(vault, "plant-viewer"),
        "VAULT_CACERT": str(ca),
        "USER": "erika",
    }


@pytest.fixture
def get(edgefarm: Run, person: dict[str, str]) -> Run:
    """Runs `edgefarm creds plant --policy viewer -n shop` as that person."""

    def run(*arguments: str, **environ: str) -> Ended:
        chosen = ("plant", "--policy", "viewer", "-n", "shop", "--transit-mount", _TRANSIT)
        return edgefarm("creds", *chosen, *arguments, **{**person, **environ})

    return run


async def test_the_credentials_connect_and_may_do_what_the_policy_says_and_no_more(
    get: Run, plant: Plant, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "viewer.creds"
    ended = get("--account", plant.account.public, "--out", str(file), "-o", "json")
    assert ended.status == 0, ended
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().count("BEGIN") == 2
    assert "SEED" not in ended.out
    async with await Connection.open(plant.hub.url, authority, creds.parse_creds(file.read_text())) as connection:
        heard = await connection.client.subscribe("sensor.temperature")
        await connection.client.publish("viewer.hello", b"")
        await connection.settle()
        assert connection.errors == []
        await connection.client.publish("sensor.temperature", b"")
        await connection.client.subscribe("viewer.hello")
        await connection.settle()
        assert [error.lower().count("permissions violation") for error in connection.errors] == [1, 1]
        assert heard.pending_msgs == 0


def test_the_credentials_name_the_person_and_end_after_their_lifetime(get: Run, plant: Plant) -> None:
    before = datetime.now(UTC)
    ended = get("--account", plant.account.public, "--ttl", "15m", "--out", "-")
    token, _ = creds.parse_creds(ended.out)
    body = jwt.decode(token)
    assert body["name"] == "edgefarm-creds.erika"
    assert body["nats"] == {"type": "user", "version": 2, "issuer_account": plant.account.public}
    assert body["exp"] - body["iat"] == 15 * 60
    assert abs(body["iat"] - before.timestamp()) < 60


async def test_expired_credentials_are_refused(vault: Vault, plant: Plant, authority: Authority) -> None:
    order = Order("plant", "shop", "viewer", "erika", timedelta(minutes=1))
    earlier = datetime.now(UTC) - timedelta(minutes=2)
    issued = issue(vault, order, plant.account.public, now=earlier, identifier="expired")
    with pytest.raises(nats.errors.Error, match="Authorization"):
        await Connection.open(plant.hub.url, authority, creds.parse_creds(issued.text))


def test_the_key_of_another_policy_is_refused_with_what_to_do(edgefarm: Run, person: dict[str, str]) -> None:
    arguments = ("plant", "--policy", "admin", "-n", "shop", "--transit-mount", _TRANSIT, "--account", "A" * 56)
    ended = edgefarm("creds", *arguments, **person)
    assert ended.status == 3
    assert "`edgefarm vault policy plant --policy admin -n shop` prints" in ended.err
    assert person["VAULT_TOKEN"] not in ended.err


def test_a_policy_that_has_no_key_is_named(vault: Vault) -> None:
    order = Order("plant", "shop", "nobody", "erika", timedelta(minutes=1))
    with pytest.raises(VaultRefused, match=r"edgefarm status plant -n shop.*'nobody' is in effect"):
        issue(vault, order, "A" * 56, now=datetime.now(UTC), identifier="x")


def test_the_token_of_a_login_is_found_in_the_home_folder(get: Run, person: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".vault-token").write_text(person["VAULT_TOKEN"] + "\n")
    ended = get("--account", "A" * 56, "--out", str(tmp_path / "x.creds"), VAULT_TOKEN="")
    assert ended.status == 0, ended


def test_openbaos_variables_count_too_and_two_that_differ_are_refused(get: Run, person: dict[str, str]) -> None:
    ended = get("--account", "A" * 56, "--out", "-", VAULT_ADDR="", BAO_ADDR=person["VAULT_ADDR"])
    assert ended.status == 0
    ended = get("--account", "A" * 56, BAO_ADDR="https://elsewhere.example:8200")
    assert (ended.status, ended.err) == (2, "edgefarm: VAULT_ADDR and BAO_ADDR differ: unset one of them\n")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"VAULT_ADDR": ""}, "VAULT_ADDR (or BAO_ADDR) is not set"),
        ({"VAULT_ADDR": "vault.example"}, "is 'vault.example': write a URL such as https://vault.example:8200"),
        ({"VAULT_TOKEN": ""}, "there is no Vault login"),
        ({"VAULT_CACERT": "/nowhere/ca.crt"}, "VAULT_CACERT (or BAO_CACERT) is '/nowhere/ca.crt'"),
    ],
)
def test_a_login_that_lacks_something_says_what(get: Run, changes: dict[str, str], problem: str) -> None:
    ended = get("--account", "A" * 56, **changes)
    assert ended.status == 2
    assert problem in ended.err


def test_a_vault_that_does_not_answer_is_named(get: Run) -> None:
    ended = get("--account", "A" * 56, VAULT_ADDR="https://127.0.0.1:9")
    assert ended.status == 3
    assert "Vault at https://127.0.0.1:9 does not answer" in ended.err


@pytest.mark.parametrize("ttl", ["30s", "25h", "soon"])
def test_a_lifetime_beyond_the_bounds_is_refused(get: Run, ttl: str) -> None:
    ended = get("--ttl", ttl, "--account", "A" * 56)
    assert ended.status == 2
    assert "--ttl" in ended.err


# Named, because a key that is another one in each worker would keep them from agreeing on what to run.
@pytest.mark.parametrize("account", ["banana", nkeys.generate_user().public], ids=["a word", "the key of a user"])
def test_an_account_that_is_none_is_refused(get: Run, account: str) -> None:
    ended = get("--account", account)
    assert ended.status == 2
    assert f"'--account': '{account}' is no account's public key: write the one of the Network's status" in ended.err


def test_a_file_that_cannot_be_written_is_named(get: Run) -> None:
    ended = get("--account", "A" * 56, "--out", "/nowhere/viewer.creds")
    assert ended.status == 2
    assert "--out: /nowhere/viewer.creds cannot be written" in ended.err


def test_names_that_cannot_be_are_refused_before_anybody_is_asked(edgefarm: Run) -> None:
    ended = edgefarm("creds", "Plant!", "--policy", "viewer", "-n", "shop")
    assert ended.status == 2
    assert "Plant!" in ended.err
