"""The reconciler's logins to a real OpenBao and a real nats-server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgefarm import names
from edgefarm.errors import NatsUnavailable, VaultRefused, VaultUnavailable
from edgefarm.nats import jwt
from edgefarm.vault import Vault
from localcluster.stack import Authority, NatsServer
from reconciler.configuration import Configuration, parse_configuration
from reconciler.connections import Connections
from reconciler.metrics import Metrics
from reconciler.users import system_user
from reconciler.vault_session import VaultSession
from tests.runtime.conftest import BootstrappedVault
from tests.runtime.fakes import LOG


@pytest.fixture(scope="module")
def hub(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, bootstrapped: BootstrappedVault
) -> Iterator[NatsServer]:
    """A NATS server that trusts the bootstrapped operator."""
    folder = tmp_path_factory.mktemp("hub")
    server = NatsServer.start(folder, authority, auth=bootstrapped.result.nats_config(str(folder / "resolver")))
    yield server
    server.stop()


@pytest.fixture
def configuration(authority: Authority, bootstrapped: BootstrappedVault, hub: NatsServer) -> Configuration:
    minimal = parse_configuration(
        {"config.yaml": f"vault: {{address: '{bootstrapped.settings.address}'}}\nnats: {{urls: ['{hub.url}']}}"}
    )
    return replace(
        minimal,
        vault=replace(
            minimal.vault,
            server=replace(bootstrapped.settings, timeout_seconds=minimal.vault.server.timeout_seconds),
        ),
        nats=replace(minimal.nats, ca_bundle=authority.pem),
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def connections(token_file: Path, metrics: Metrics) -> AsyncIterator[Connections]:
    connections = Connections(token_file, clock=lambda: datetime.now(UTC), metrics=metrics, log=LOG)
    yield connections
    await connections.close()


@pytest.fixture
async def vault(bootstrapped: BootstrappedVault) -> AsyncIterator[Vault]:
    """A client without a login."""
    vault = Vault(bootstrapped.settings)
    yield vault
    vault.close()


async def test_without_a_configuration_everything_says_what_it_waits_for(connections: Connections) -> None:
    with pytest.raises(VaultUnavailable, match="waiting for a valid ConfigMap network"):
        await connections.call(Vault.keys)
    with pytest.raises(NatsUnavailable, match="waiting for a valid ConfigMap network"):
        connections.nats()


async def test_many_calls_at_once_share_one_login(vault: Vault, token_file: Path) -> None:
    session = VaultSession(vault, token_file)
    await asyncio.gather(*(session.call(Vault.key, names.OPERATOR_KEY) for _ in range(20)))
    assert vault.requests["log in"] == 1
    await session.close()


async def test_a_login_that_vault_has_forgotten_is_replaced_once_and_the_call_succeeds(
    vault: Vault, token_file: Path
) -> None:
    session = VaultSession(vault, token_file, fresh_seconds=0)
    await session.call(Vault.keys)
    vault.transport.use_token("expired")
    assert names.OPERATOR_KEY in await session.call(Vault.keys)
    assert vault.requests["log in"] == 2
    await session.close()


async def test_what_is_forbidden_stays_forbidden_and_costs_no_further_login(vault: Vault, token_file: Path) -> None:
    session = VaultSession(vault, token_file)
    for _ in range(2):
        with pytest.raises(VaultRefused, match="permission denied"):
            await session.call(Vault.sign, names.OPERATOR_KEY, 1, b"data")
    assert vault.requests["log in"] == 1
    await session.close()


async def test_a_vault_that_never_answers_costs_all_waiting_calls_one_time_limit_together(
    bootstrapped: BootstrappedVault, token_file: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        vault = Vault(replace(bootstrapped.settings, address=address, timeout_seconds=0.5))
        session = VaultSession(vault, token_file)
        outcomes = await asyncio.gather(*(session.call(Vault.keys) for _ in range(20)), return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {VaultUnavailable}
        assert vault.requests["log in"] == 1
        await session.close()


async def test_a_token_file_that_is_missing_is_named(vault: Vault, work: Path) -> None:
    session = VaultSession(vault, work / "nothing-here")
    with pytest.raises(VaultUnavailable, match="nothing-here cannot be read"):
        await session.call(Vault.keys)
    await session.close()


async def test_the_system_user_is_signed_by_vault_and_short_lived(
    connections: Connections, configuration: Configuration, bootstrapped: BootstrappedVault
) -> None:
    connections.apply(configuration)
    now = datetime.now(UTC)
    token, seed = await system_user(connections, now)
    claims = jwt.decode(token)
    assert claims["nats"]["issuer_account"] == bootstrapped.result.system_account
    assert timedelta(seconds=claims["exp"]) == timedelta(seconds=int(now.timestamp())) + timedelta(hours=1)
    assert seed.startswith("SU")


async def test_the_hub_accepts_the_reconciler_in_its_system_account(
    connections: Connections, configuration: Configuration, bootstrapped: BootstrappedVault, metrics: Metrics
) -> None:
    connections.apply(configuration)
    (answer,) = await connections.nats().lookup(bootstrapped.result.system_account)
    assert answer.jwt is not None
    exposition = metrics.render().decode()
    assert 'edgefarm_requests_total{kind="",request="lookup",system="nats"} 1.0' in exposition
    assert 'edgefarm_requests_total{kind="200",request="sign",system="vault"} 1.0' in exposition


async def test_a_changed_section_replaces_its_clients_without_a_restart(
    connections: Connections, configuration: Configuration, bootstrapped: BootstrappedVault
) -> None:
    wrong = replace(
        configuration,
        vault=replace(configuration.vault, server=replace(configuration.vault.server, address="https://127.0.0.1:1")),
    )
    connections.apply(wrong)
    with pytest.raises(VaultUnavailable):
        await connections.call(Vault.keys)
    connections.apply(configuration)
    assert names.OPERATOR_KEY in await connections.call(Vault.keys)
    before = connections.nats()
    connections.apply(replace(configuration, resync=timedelta(seconds=1)))
    assert await before.lookup(bootstrapped.result.system_account)
