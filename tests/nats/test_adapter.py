"""The reconciler's client of the system account, against real servers: one, and a cluster of three."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats.errors
import pytest

from edgefarm.errors import NatsRefused, NatsUnavailable
from edgefarm.nats.templates import CONTROLLER_INBOX, PermissionTemplate
from localcluster.process import free_port
from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from tests.natskit import Connection, Credentials, Hub, LocalOperator, eventually, make_user

ANYTHING = PermissionTemplate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Hub]:
    running = Hub.start(tmp_path_factory.mktemp("cluster"), authority, LocalOperator(), size=3)
    yield running
    running.stop()


@pytest.fixture
async def three(cluster: Hub) -> AsyncIterator[SystemClient]:
    client = client_of(cluster)
    await until_servers(client, 3)
    yield client
    await client.close()


def client_of(hub: Hub, urls: list[str] | None = None, patience: float = 5.0) -> SystemClient:
    return SystemClient(
        urls or hub.urls, hub.operator.system_credentials, ca_bundle=hub.authority.pem, timeout=patience
    )


async def until_servers(client: SystemClient, number: int) -> None:
    deadline = time.monotonic() + 20
    while len(await client.servers()) != number:
        assert time.monotonic() < deadline, f"the hub never had {number} servers"


async def stored(client: SystemClient, account: str) -> dict[str, str | None]:
    return {found.server: found.jwt for found in await client.lookup(account)}


async def test_a_pushed_account_is_read_back_as_it_was_pushed(hub: Hub, system: SystemClient) -> None:
    account = hub.operator.account("net")
    token = account.token()
    await system.push(token)
    assert await stored(system, account.public) == {"hub-0": token}


async def test_an_account_that_nobody_pushed_is_absent(hub: Hub, system: SystemClient) -> None:
    assert await stored(system, hub.operator.account("net").public) == {"hub-0": None}


async def test_a_deleted_account_is_absent_and_deleting_it_again_is_no_error(hub: Hub, system: SystemClient) -> None:
    account = hub.operator.account("net")
    await system.push(account.token())
    await system.delete(hub.operator.delete_token(account.public))
    assert await stored(system, account.public) == {"hub-0": None}
    await system.delete(hub.operator.delete_token(account.public))


async def test_an_account_signed_by_the_operators_identity_key_is_refused(hub: Hub, system: SystemClient) -> None:
    operator = hub.operator
    wrong = LocalOperator(identity=operator.identity, signing=operator.identity, system=operator.system)
    with pytest.raises(NatsRefused, match=r"hub-0: .*issuer to be a signing key"):
        await system.push(wrong.account("net").token())


async def test_a_deletion_by_an_unknown_key_is_refused(hub: Hub, system: SystemClient) -> None:
    with pytest.raises(NatsRefused, match="not trusted"):
        await system.delete(LocalOperator().delete_token(hub.operator.account("net").public))


async def test_garbage_is_refused_and_the_next_call_works(hub: Hub, system: SystemClient) -> None:
    with pytest.raises(NatsRefused):
        await system.push("garbage")
    await system.push(hub.operator.account("net").token())


async def test_many_calls_at_once_each_get_their_own_answers(hub: Hub, system: SystemClient) -> None:
    accounts = [hub.operator.account(f"net-{number}") for number in range(50)]
    tokens = {account.public: account.token() for account in accounts}
    await asyncio.gather(*(system.push(token) for token in tokens.values()))
    found = await asyncio.gather(*(stored(system, account) for account in tokens))
    assert found == [{"hub-0": token} for token in tokens.values()]


async def test_expired_credentials_are_replaced_by_a_new_login(hub: Hub) -> None:
    logins: list[Credentials] = []

    async def short_lived() -> Credentials:
        logins.append(make_user(hub.operator.system.public, hub.operator.controller, lifetime=2))
        return logins[-1]

    client = SystemClient(hub.urls, short_lived, ca_bundle=hub.authority.pem)
    deadline = time.monotonic() + 15
    while len(logins) < 3:
        await client.lookup(hub.operator.system.public)
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await client.close()
    assert len({token for token, _ in logins}) == len(logins)


async def test_a_server_that_is_restarted_costs_no_error(work: Path, authority: Authority) -> None:
    hub = Hub.start(work, authority, LocalOperator())
    client, account = client_of(hub), hub.operator.account("net")
    token = account.token()
    await client.push(token)
    hub.servers["hub-0"].stop()
    with pytest.raises(NatsUnavailable, match=hub.url):
        await client.lookup(account.public)
    hub.start_server("hub-0")
    assert await stored(client, account.public) == {"hub-0": token}
    await client.close()
    hub.stop()


async def test_an_unreachable_server_is_named(hub: Hub) -> None:
    url = f"tls://127.0.0.1:{free_port()}"
    client = client_of(hub, [url])
    with pytest.raises(NatsUnavailable, match=f"{url}: .*Connect call failed"):
        await client.lookup("A")
    await client.close()


@pytest.mark.parametrize(
    "url", ["", "nats", "127.0.0.1:4222", "tls://a:port", "tls://a:70000", "tls://:1", "http://a:1"]
)
def test_an_url_that_cannot_be_read_is_named(hub: Hub, url: str) -> None:
    with pytest.raises(ValueError, match="is no URL of a NATS server") as caught:
        client_of(hub, [url])
    assert repr(url) in str(caught.value)


@pytest.mark.parametrize("auth_required", [True, False])
async def test_a_server_that_does_not_offer_tls_gets_no_proof_of_who_we_are_and_no_request(
    hub: Hub, auth_required: bool
) -> None:
    heard = bytearray()
    info = {"server_id": "x", "auth_required": auth_required, "nonce": "abc", "headers": True, "max_payload": 1 << 20}

    async def man_in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                heard.extend(data)
                writer.write(b"PONG\r\n" * data.count(b"PING"))
        writer.close()

    async with await asyncio.start_server(man_in_the_middle, "127.0.0.1", 0) as server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = client_of(hub, [url])
        with pytest.raises(NatsUnavailable, match="secure connection required"):
            await client.servers()
        await client.close()
    assert b'"sig"' not in heard
    assert b"SUB" not in heard
    assert b"CLAIMS" not in heard


async def test_claims_that_are_too_long_for_a_message_are_refused(system: SystemClient) -> None:
    with pytest.raises(NatsRefused, match="NATS accepts messages of 1048576 bytes"):
        await system.push("x" * (2 << 20))


async def test_the_next_url_is_tried_when_one_is_down(hub: Hub) -> None:
    client = client_of(hub, [f"tls://127.0.0.1:{free_port()}", hub.url])
    assert await client.servers() == ["hub-0"]
    await client.close()


async def test_a_server_that_accepts_and_stays_silent_does_not_hang_a_call(hub: Hub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tls://127.0.0.1:{silent.getsockname()[1]}"
        client = client_of(hub, [url], patience=0.3)
        with pytest.raises(NatsUnavailable, match=rf"{url}: no answer within 0\.3 s"):
            await client.push("x")
        await client.close()


class Uplink:
    """A TCP relay to a server; while it is cut, what is connected stays connected but hears nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Forward nothing more on the connections of now."""
        for task in self._tasks:
            task.cancel()

    def close(self) -> None:
        self._server.close()
        self.cut()
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers.add(far_writer)
        if not self._server.is_serving():
            far_writer.transport.abort()
            return
        for source, target in ((reader, far_writer), (far_reader, writer)):
            self._tasks.add(asyncio.create_task(self._forward(source, target)))

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
        target.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_connection_that_fell_silent_fails_one_call_and_is_replaced(hub: Hub) -> None:
    before, uplink = open_files(), Uplink(int(hub.url.rpartition(":")[2]))
    client = client_of(hub, [f"tls://127.0.0.1:{await uplink.open()}"], patience=0.5)
    assert await client.servers() == ["hub-0"]
    uplink.cut()
    with pytest.raises(NatsUnavailable, match=r"within 0\.5 s"):
        await client.push(hub.operator.account("net").token())
    assert await client.servers() == ["hub-0"]
    await client.close()
    uplink.close()
    await eventually(lambda: open_files() <= before, "all sockets are closed")


async def test_a_call_that_is_cancelled_leaves_nothing_open(hub: Hub) -> None:
    before = open_files()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = client_of(hub, [f"tls://127.0.0.1:{silent.getsockname()[1]}"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.servers()
    await eventually(lambda: open_files() <= before, "all sockets are closed")


async def test_a_server_with_a_certificate_of_another_authority_is_not_trusted(hub: Hub, work: Path) -> None:
    other = Authority.create(work)
    client = SystemClient(hub.urls, hub.operator.system_credentials, ca_bundle=other.pem)
    with pytest.raises(NatsUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await client.servers()
    await client.close()


async def test_credentials_of_another_operator_are_not_accepted(hub: Hub) -> None:
    client = SystemClient(hub.urls, LocalOperator().system_credentials, ca_bundle=hub.authority.pem)
    with pytest.raises(NatsUnavailable, match="Authorization Violation") as caught:
        await client.servers()
    assert "SU" not in str(caught.value)
    await client.close()


async def test_a_user_outside_of_the_system_account_is_told_so(hub: Hub, system: SystemClient) -> None:
    account = hub.operator.account("net")
    account.scope("all", ANYTHING)
    await system.push(account.token())

    async def tenant() -> Credentials:
        return account.user("all")

    client = SystemClient(hub.urls, tenant, ca_bundle=hub.authority.pem)
    with pytest.raises(NatsUnavailable, match="belong to its system account"):
        await client.lookup(account.public)
    await client.close()


@pytest.mark.parametrize("subject", ["$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$SYS.REQ.SERVER.X.KICK"])
async def test_the_reconcilers_own_user_may_do_no_more_than_manage_accounts_and_servers(hub: Hub, subject: str) -> None:
    credentials, inbox = await hub.operator.system_credentials(), f"{CONTROLLER_INBOX}.test".encode()
    async with await Connection.open(hub.url, hub.authority, credentials, inbox_prefix=inbox) as connection:
        with pytest.raises((nats.errors.TimeoutError, nats.errors.NoRespondersError)):
            await connection.client.request(subject, b"", timeout=0.3)
        assert any(f'permissions violation for publish to "{subject.lower()}"' in e.lower() for e in connection.errors)


async def test_every_server_of_a_cluster_is_asked(cluster: Hub, three: SystemClient) -> None:
    account = cluster.operator.account("net")
    token = account.token()
    await three.push(token)
    assert await stored(three, account.public) == {"hub-0": token, "hub-1": token, "hub-2": token}
    await three.delete(cluster.operator.delete_token(account.public))
    assert set((await stored(three, account.public)).values()) == {None}


async def test_a_server_that_lost_its_accounts_is_named(cluster: Hub, three: SystemClient) -> None:
    account = cluster.operator.account("net")
    token = account.token()
    await three.push(token)
    cluster.servers["hub-2"].stop()
    shutil.rmtree(cluster.resolver_dir("hub-2"))
    cluster.start_server("hub-2")
    await until_servers(three, 3)
    assert await stored(three, account.public) == {"hub-0": token, "hub-1": token, "hub-2": None}
    await three.push(token)
    assert set((await stored(three, account.public)).values()) == {token}


async def test_a_server_with_an_older_version_is_seen(cluster: Hub, three: SystemClient) -> None:
    account = cluster.operator.account("net")
    old = account.token()
    await three.push(old)
    cluster.servers["hub-2"].stop()
    new = account.token()
    await three.push(new)
    cluster.start_server("hub-2")
    await until_servers(three, 3)
    found = await three.lookup(account.public)
    assert sorted(one.jwt or "" for one in found) == sorted([old, new, new])
    assert {one.server for one in found} == {"one of hub-0, hub-1, hub-2"}


async def test_a_server_that_left_does_not_block_the_others(cluster: Hub, three: SystemClient) -> None:
    client = client_of(cluster, cluster.urls[:1], patience=1.0)
    assert await client.servers() == ["hub-0", "hub-1", "hub-2"]
    cluster.servers["hub-1"].stop()
    account = cluster.operator.account("net")
    token = account.token()
    await client.push(token)
    assert await stored(client, account.public) == {"hub-0": token, "hub-2": token}
    cluster.start_server("hub-1")
    await until_servers(client, 3)
    await client.close()
