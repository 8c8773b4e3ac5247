"""The configuration of leafs: nats-server reads every text that is made, and what cannot stand in one is refused."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgefarm.errors import InvalidCredential
from edgefarm.nats import nkeys
from edgefarm.nats.leafconfig import LeafServer, ListenerTls, Storage, Uplink, leaf_config
from edgefarm.nats.nkeys import Prefix
from localcluster.stack import Authority, find_program
from tests.natskit import LocalOperator

#: Text that would end a value or begin another one, were it not quoted.
NASTY = "a b\"c\\d$e{f}#g;h'i.jwt"


@pytest.fixture
def server(work: Path, authority: Authority) -> LeafServer:
    operator = LocalOperator()
    certificate, key = authority.issue("leaf", ["127.0.0.1"])
    return LeafServer(
        domain="foo-node_one",
        host="127.0.0.1",
        client_port=4222,
        monitor_port=8222,
        pid_file=str(work / "nats.pid"),
        operator_jwt=operator.token(),
        system_account=operator.system.public,
        system_account_jwt=operator.system_token(),
        accounts_folder=str(work / "accounts"),
        storage=Storage(str(work / "jetstream"), 1_000_000, 2_000_000),
        uplink=Uplink(
            urls=("tls://hub.example:7422", "tls://[2001:db8::1]:7422"),
            account=nkeys.generate(Prefix.ACCOUNT).public,
            credentials=str(work / "network.creds"),
            system_credentials=str(work / "system.creds"),
            ca_file=str(authority.certificate),
        ),
        tls=ListenerTls(str(certificate), str(key)),
    )


async def accepted(text: str, work: Path) -> str:
    """What nats-server says of a configuration (it only checks it)."""
    path = work / "leaf.conf"
    path.write_text(text)
    command = [find_program("nats-server"), "-t", "-c", str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_the_server_accepts_the_configuration(server: LeafServer, work: Path) -> None:
    await accepted(leaf_config(server), work)


@pytest.mark.parametrize(
    "change",
    [
        {"tls": None},
        {"host": "::1"},
        {"storage": Storage("/none", 0, 0)},
        {"storage": Storage("/some", 2**63 - 1, 0)},
        {"storage": Storage("/some", 0, 1)},
        {"metadata": {"configuration": "0a1b", "file-storage": "12"}},
        {"metadata": {"nasty": NASTY}},
        {"domain": "a" * 128},
    ],
)
async def test_the_server_accepts_every_variant(server: LeafServer, work: Path, change: dict[str, Any]) -> None:
    await accepted(leaf_config(replace(server, **change)), work)


async def test_the_hub_may_be_verified_against_the_systems_roots(server: LeafServer, work: Path) -> None:
    text = leaf_config(replace(server, uplink=replace(server.uplink, ca_file=None)))
    assert "ca_file" not in text
    await accepted(text, work)


async def test_paths_may_contain_what_ends_a_value(server: LeafServer, work: Path) -> None:
    nasty = str(work / NASTY)
    changed = replace(
        server,
        pid_file=nasty,
        accounts_folder=f"{nasty}-accounts",
        storage=replace(server.storage, folder=nasty),
        uplink=replace(server.uplink, credentials=nasty, system_credentials=f"{nasty}2"),
    )
    await accepted(leaf_config(changed), work)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": ""},
        {"domain": "a.b"},
        {"domain": "a b"},
        {"domain": "a" * 129},
        {"domain": "x\n}"},
        {"client_port": 0},
        {"monitor_port": 65536},
        {"pid_file": "a\nb"},
        {"operator_jwt": "a\x00b"},
        {"storage": Storage("/s", -1, 0)},
        {"storage": Storage("/s", 0, 2**63)},
        {"metadata": {"a": "b\n}"}},
        {"metadata": {"a b": "c"}},
    ],
)
def test_what_cannot_stand_in_a_configuration_is_refused(server: LeafServer, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot|must not|not a"):
        leaf_config(replace(server, **change))


@pytest.mark.parametrize("url", ["", "hub:7422", "http://hub", "tls://", "tls://user:secret@hub:7422"])
def test_a_url_that_cannot_be_used_is_refused_without_repeating_it(server: LeafServer, url: str) -> None:
    with pytest.raises(ValueError, match="URL of the hub") as refused:
        leaf_config(replace(server, uplink=replace(server.uplink, urls=(url,))))
    assert "secret" not in str(refused.value)


def test_accounts_must_be_public_keys_of_accounts(server: LeafServer) -> None:
    user = nkeys.generate_user().public
    with pytest.raises(ValueError, match="not the public key of an account"):
        leaf_config(replace(server, system_account=user))
    with pytest.raises(InvalidCredential):
        leaf_config(replace(server, uplink=replace(server.uplink, account="A")))


def test_a_leaf_without_hub_is_refused(server: LeafServer) -> None:
    with pytest.raises(ValueError, match="no URL"):
        leaf_config(replace(server, uplink=replace(server.uplink, urls=())))


def test_without_storage_there_is_no_jetstream_and_with_one_kind_the_other_is_next_to_nothing(
    server: LeafServer,
) -> None:
    assert "jetstream {" not in leaf_config(replace(server, storage=Storage("/s", 0, 0)))
    text = leaf_config(replace(server, storage=Storage("/s", 5, 0)))
    assert "max_mem: 1\n" in text, "0 would mean whatever the machine has"
    assert "max_file: 5\n" in text
