"""What the agent does when Vault, NATS, its credentials or its connection go away, and when they come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent.executor import NetworkSettings
from edgefarm import names
from edgefarm.agentbus import Status
from localcluster.stack import Authority, OpenBao
from reconciler.adapters.nats import SystemClient
from tests.agent.world import Controller, EdgeHost, World
from tests.conftest import mounted_vault
from tests.natskit import Hub, eventually
from tests.vault.reviewer import TokenReviewer

MakeHost = Callable[..., EdgeHost]


@pytest.fixture
def own_bao(work: Path, authority: Authority) -> Iterator[OpenBao]:
    """An OpenBao that the test may stop."""
    server = OpenBao.start(work / "bao", authority)
    yield server
    server.stop()


@pytest.fixture
async def own_world(
    work: Path, own_bao: OpenBao, world: World, reviewer: TokenReviewer, authority: Authority
) -> AsyncIterator[World]:
    """A world whose Vault and hub are its own."""
    vault = mounted_vault(own_bao, authority, reviewer, "agent")
    hub = Hub.start(work / "hub", authority, world.hub.operator)
    system = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=authority.pem)
    own = World(vault, reviewer, hub, system, world.account, authority)
    await own.push()
    own.grant()
    yield own
    await system.close()
    hub.stop()


async def test_credentials_are_renewed_before_they_end_without_a_gap(
    make_host: MakeHost, world: World, controller: Controller, work: Path
) -> None:
    world.grant(renewEverySeconds=1, lifetimeSeconds=60)
    script = f"touch {work}/runs; while [ ! -e {work}/go ]; do sleep 0.02; done; cat"
    host = make_host(NetworkSettings(enabled=True, arguments=("/bin/sh", "-c", script)))
    await host.until("registered", ready=True)
    first = controller.nkey
    slow = asyncio.create_task(controller.request(b"asked before", nkey=first))
    await eventually((work / "runs").exists, "the command runs")
    await controller.registered(2)
    assert controller.nkey != first
    # What was asked over the old connection is answered over it.
    (work / "go").touch()
    assert (await slow).data == b"asked before"
    assert (await controller.request(b"asked after")).data == b"asked after"
    assert host.presence.ready


async def test_a_lost_connection_comes_back_with_the_same_credentials(
    make_host: MakeHost, own_world: World, work: Path
) -> None:
    host = own_world.host(work / "own").start()
    controller = await Controller.open(own_world.hub, own_world.controller_user())
    await host.until("registered", ready=True)
    before = controller.nkey
    # Vault is away as well: it is not needed.
    own_world.vault.delete_role(names.agent_role("network-agent"))
    own_world.hub.stop()
    await host.until("NATS")
    assert not host.presence.ready
    own_world.hub.start_server("hub-0")
    await controller.close()
    controller = await Controller.open(own_world.hub, own_world.controller_user())
    await host.until("registered", ready=True)
    assert controller.nkey == before
    assert (await controller.request(b"q")).data == b"q"
    await controller.close()
    await host.stop()


async def test_without_vault_the_agent_waits_and_then_starts(own_world: World, own_bao: OpenBao, work: Path) -> None:
    own_bao.stop()
    host = own_world.host(work / "own").start()
    await host.until("does not answer")
    port = int(own_bao.address.rpartition(":")[2])
    again = OpenBao.start(work / "bao", own_world.authority, port=port)
    controller = await Controller.open(own_world.hub, own_world.controller_user())
    await host.until("registered", ready=True)
    await controller.close()
    await host.stop()
    again.stop()


async def test_while_vault_is_away_old_credentials_serve_on(own_world: World, own_bao: OpenBao, work: Path) -> None:
    own_world.grant(renewEverySeconds=1, lifetimeSeconds=600)
    controller = await Controller.open(own_world.hub, own_world.controller_user())
    host = own_world.host(work / "own").start()
    await host.until("registered", ready=True)
    own_bao.stop()
    await eventually(lambda: any("cannot be renewed" in line["event"] for line in host.lines), "renewal fails", 20)
    assert host.presence.ready
    assert (await controller.request(b"q")).data == b"q"
    await controller.close()
    await host.stop()


async def test_a_connection_that_cannot_be_renewed_serves_on(
    make_host: MakeHost, world: World, controller: Controller
) -> None:
    world.grant(renewEverySeconds=1, lifetimeSeconds=600)
    host = make_host()
    await host.until("registered", ready=True)
    world.grant(renewEverySeconds=1, lifetimeSeconds=600, hub=["tls://127.0.0.1:1"])
    await eventually(lambda: any("cannot be renewed" in line["event"] for line in host.lines), "renewal fails", 20)
    assert host.presence.ready
    assert (await controller.request(b"q")).data == b"q"


async def test_expired_credentials_are_replaced(make_host: MakeHost, world: World, controller: Controller) -> None:
    # Our own clock does not move on, so that the server is the first to notice.
    world.grant(lifetimeSeconds=4)
    began = time.time()
    host = make_host(start=False)
    host.clock = lambda: began
    host.start()
    await host.until("registered", ready=True)
    first = controller.nkey
    await eventually(lambda: not host.presence.ready, "the server ends the connection", 20)
    world.grant()
    host.clock = time.time
    await host.until("registered", ready=True)
    assert controller.nkey != first


async def test_a_key_that_was_replaced_is_followed(make_host: MakeHost, world: World, controller: Controller) -> None:
    host = make_host()
    await host.until("registered", ready=True)
    first = controller.nkey
    world.vault.rotate_key(names.AGENTS_KEY)
    await world.push()
    await host.until("does not accept this agent's credentials")
    world.grant()
    await host.until("registered", ready=True)
    assert controller.nkey != first


async def test_missing_grants_and_documents_are_named(
    make_host: MakeHost, world: World, controller: Controller
) -> None:
    role = names.agent_role("network-agent")
    world.vault.delete_role(role)
    host = make_host()
    await host.until("refused to log in")
    assert role in host.presence.sentence
    assert "mesh.enabled" in host.presence.sentence
    world.grant()
    world.vault.delete_document(names.agent_access_document("network", "network-agent"))
    await host.until("Vault holds no access document 'access/AGENTS/network/network-agent'")
    world.grant(hub=[])
    await host.until("hub of the access document")
    world.grant()
    await host.until("registered", ready=True)


@pytest.mark.parametrize("auth_required", [True, False])
async def test_a_server_without_tls_gets_neither_signature_nor_token(
    world: World, work: Path, auth_required: bool
) -> None:
    heard = bytearray()
    info = {"server_id": "X", "version": "2.15.0", "max_payload": 1 << 20, "headers": True, "nonce": "abc"}

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Somebody between us and the server who would like us to speak in plain text.
        writer.write(f"INFO {json.dumps({**info, 'auth_required': auth_required})}\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                heard.extend(data)
                writer.write(b"PONG\r\n" * data.count(b"PING"))
        writer.close()

    async with await asyncio.start_server(pretend, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        world.grant(hub=[f"tls://127.0.0.1:{port}"])
        host = world.host(work / "own").start()
        await host.until("secure connection not available")
        await host.stop()
    assert b'"sig"' not in heard
    assert b"eyJ" not in heard
    assert b"proof" not in heard
    assert b"SUB" not in heard


async def test_the_first_server_that_answers_is_taken(
    make_host: MakeHost, world: World, controller: Controller
) -> None:
    world.grant(hub=["tls://127.0.0.1:1", world.hub.url])
    host = make_host()
    await host.until("registered", ready=True)


async def test_an_unreachable_hub_is_named(make_host: MakeHost, world: World) -> None:
    world.grant(hub=["tls://127.0.0.1:1", "not a url"])
    host = make_host()
    await host.until("Cannot log in to NATS at tls://127.0.0.1:1: ")


async def test_stopping_ends_running_commands_and_answers(
    make_host: MakeHost, controller: Controller, work: Path
) -> None:
    script = f"touch {work}/runs; sleep 60"
    host = make_host(NetworkSettings(enabled=True, arguments=("/bin/sh", "-c", script)))
    await host.until("registered", ready=True)
    asked = asyncio.create_task(controller.request(b"q"))
    await eventually((work / "runs").exists, "the command runs")
    await host.stop()
    answer = await asked
    assert (answer.status, answer.text) == (Status.BUSY, "the agent is ending")
