"""The relay between real clients and real nats-servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from localcluster.process import free_port
from localcluster.stack import Authority
from sidecar.route import Look, Place, Reach
from sidecar.upstream import KNOWN_LEAF, TIMEOUTS, Connected, Dialler, Trouble, Upstream
from tests.sidecar.relaykit import RawClient, RunningRelay, Server, within
from tests.sidecar.values import held


@pytest.fixture
def server(work: Path) -> Iterator[Server]:
    """A plain server that takes messages of 8 MB."""
    running = Server.start(work / "server", "one", "max_payload: 8MB\nmax_pending: 64MB")
    yield running
    running.stop()


@pytest.fixture
def relay(server: Server) -> RunningRelay:
    """A relay to it."""
    return RunningRelay.start(server.upstream())


def _tls(authority: Authority, name: str, extra: str = "") -> str:
    certificate, key = authority.issue(name, ["127.0.0.1"])
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}"\n{extra} }}'


async def test_a_client_publishes_and_subscribes_through_it(relay: RunningRelay) -> None:
    client = await nats.connect(relay.url)
    subscription = await client.subscribe("a.>")
    await client.publish("a.b", b"INFO {}\r\nMSG", headers={"x": "y"})
    message = await subscription.next_msg(timeout=20)
    assert (message.data, message.headers) == (b"INFO {}\r\nMSG", {"x": "y"})
    await client.close()
    await asyncio.to_thread(within, 5, lambda: relay.relay.connections == 0, "both sides are closed")


async def test_messages_of_megabytes_pass_unchanged_in_both_directions(relay: RunningRelay) -> None:
    client = await nats.connect(relay.url, pending_size=64 << 20)
    subscription = await client.subscribe("big", pending_bytes_limit=256 << 20)
    bodies = [os.urandom(size) for size in (1 << 20, 1, 0, (4 << 20) + 1, 65536, 65535)]
    for body in bodies:
        await client.publish("big", body)
    assert [(await subscription.next_msg(timeout=30)).data for _ in bodies] == bodies
    await client.close()


async def test_behind_tls_megabytes_pass_as_well(authority: Authority, work: Path) -> None:
    server = Server.start(work, "secure", "max_payload: 8MB\n" + _tls(authority, "secure"), scheme="tls")
    relay = RunningRelay.start(server.upstream(authority.pem))
    client = await nats.connect(relay.url, pending_size=64 << 20)
    subscription = await client.subscribe("big", pending_bytes_limit=256 << 20)
    bodies = [os.urandom(size) for size in (1 << 20, 1, (4 << 20) + 1, 16384, 16383)] * 4
    for body in bodies:
        await client.publish("big", body)
    assert [(await subscription.next_msg(timeout=30)).data for _ in bodies] == bodies
    await client.close()
    server.stop()


def test_a_client_learns_neither_addresses_nor_tls_of_the_server(authority: Authority, work: Path) -> None:
    server = Server.start(work, "secure", _tls(authority, "secure"), scheme="tls")
    relay = RunningRelay.start(server.upstream(authority.pem))
    with RawClient(server.port) as direct, RawClient(relay.port) as client:
        told, info = direct.info(), client.info()
    assert told["tls_required"]
    assert (info["host"], info["port"]) == ("127.0.0.1", relay.port)
    assert not {"tls_required", "tls_available", "tls_verify", "connect_urls", "ip"} & info.keys()
    for name in ("server_id", "server_name", "version", "proto", "headers", "max_payload"):
        assert info[name] == told[name]
    server.stop()


def test_later_changes_of_the_cluster_and_lame_duck_mode_do_not_reach_the_client(work: Path) -> None:
    route = free_port()
    listen = "cluster {{ name: c, listen: 127.0.0.1:{}, routes: [nats://127.0.0.1:{}] }}\nlame_duck_duration: 30s"
    first = Server.start(work, "first", listen.format(route, route))
    relay = RunningRelay.start(first.upstream())
    with RawClient(first.port) as direct, RawClient(relay.port) as client:
        direct.info(), client.info()
        direct.send('CONNECT {"verbose":false,"protocol":1}\r\nPING\r\n')
        assert direct.line() == "PONG"
        assert direct.info()["connect_info"], "the answer to CONNECT"
        client.connect()
        second = Server.start(work, "second", listen.format(free_port(), route))
        assert f"127.0.0.1:{second.port}" in direct.info()["connect_urls"]
        first.process.signal(signal.SIGUSR2)
        while not direct.info().get("ldm"):
            pass
        client.send("PING\r\n")
        assert client.line() == "PONG"
    second.stop()
    first.stop()


def test_the_credentials_of_the_client_reach_the_server_as_they_are(work: Path) -> None:
    server = Server.start(work, "locked", "authorization { user: u, password: p }")
    relay = RunningRelay.start(server.upstream())
    with RawClient(relay.port) as client:
        assert client.info()["auth_required"]
        client.send('CONNECT {"user":"u","pass":"wrong"}\r\nPING\r\n')
        assert client.line() == "-ERR 'Authorization Violation'"
        assert client.line() == "", "and the end, as the server made it"
    with RawClient(relay.port) as client:
        client.info()
        client.connect(user="u", **{"pass": "p", "Protocol": 1})
    server.stop()


def test_a_subscriber_that_does_not_read_slows_the_server_down_and_not_the_others(
    server: Server, relay: RunningRelay
) -> None:
    with RawClient(relay.port) as slow, RawClient(relay.port) as quick, RawClient(server.port) as publisher:
        for client in (slow, quick, publisher):
            client.info()
            client.send('CONNECT {"verbose":false}\r\nPING\r\n')
            assert client.line() == "PONG"
        for client in (slow, quick):
            client.send("SUB s 1\r\nPING\r\n")
            assert client.line() == "PONG"
        before, body = _rss(), "x" * (1 << 20)
        for _ in range(40):
            publisher.send(f"PUB s {len(body)}\r\n{body}\r\n")
            assert quick.line().startswith("MSG s 1 ")
            assert quick.line() == body
        assert _rss() - before < 16_000, "KiB: nothing is gathered for the slow one"
        assert slow.line().startswith("MSG s 1 "), "it was only late"


def _rss() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


async def test_many_clients_are_served_at_the_same_time(relay: RunningRelay) -> None:
    clients = await asyncio.gather(*(nats.connect(relay.url, connect_timeout=30) for _ in range(150)))
    subscriptions = await asyncio.gather(*(client.subscribe("all") for client in clients))
    await asyncio.gather(*(client.flush() for client in clients))
    await clients[0].publish("all", b"x")
    messages = await asyncio.gather(*(subscription.next_msg(timeout=30) for subscription in subscriptions))
    assert len(messages) == 150
    await asyncio.gather(*(client.close() for client in clients))


def test_a_server_that_accepts_and_stays_silent_does_not_hold_a_client_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        upstream = Upstream(Place.LEAF, (f"nats://127.0.0.1:{silent.getsockname()[1]}",), None)
        relay = RunningRelay.start(upstream)
        with RawClient(relay.port, timeout=30) as client:
            assert client.line() == ""
        report = relay.reports.get(timeout=10)
        assert isinstance(report, Trouble)
        assert "does not answer: timed out" in str(report.problem)


def test_a_client_waits_for_the_first_server_and_gets_it(server: Server) -> None:
    relay = RunningRelay.start()
    with RawClient(relay.port) as client:
        relay.relay.use(server.upstream())
        assert client.info()["server_name"] == "one"


def test_when_the_server_dies_its_clients_are_told_and_the_next_one_goes_where_the_route_leads(
    server: Server, relay: RunningRelay, work: Path
) -> None:
    other = Server.start(work / "other", "two")
    with RawClient(relay.port) as client:
        client.info()
        client.connect()
        server.process.signal(signal.SIGKILL)
        assert client.line() == ""
    waiting = RawClient(relay.port)
    relay.relay.use(other.upstream())
    with waiting as client:
        assert client.info()["server_name"] == "two"
    other.stop()


def test_a_change_of_the_route_loses_nothing_that_a_client_had_sent(
    server: Server, relay: RunningRelay, work: Path
) -> None:
    other = Server.start(work / "other", "two")
    with RawClient(server.port) as subscriber, RawClient(relay.port) as client:
        subscriber.info()
        subscriber.send('CONNECT {"verbose":false}\r\nSUB n 1\r\nPING\r\n')
        assert subscriber.line() == "PONG"
        client.info()
        client.connect()
        sent = _publish_until_told(client, relay, other)
        received = [subscriber.line() for _ in range(2 * sent)][1::2]
    assert received == [str(number) for number in range(sent)]
    assert sent >= 1000
    other.stop()


def _publish_until_told(client: RawClient, relay: RunningRelay, other: Server) -> int:
    """Publish numbers until the relay says that it ends; what was sent by then must arrive."""
    told = threading.Event()

    def read() -> None:
        while client.line():
            pass
        told.set()

    reader = threading.Thread(target=read)
    reader.start()
    number = 0
    while not told.is_set():
        client.send(f"PUB n {len(str(number))}\r\n{number}\r\n")
        number += 1
        if number == 1000:
            relay.relay.use(other.upstream())
    reader.join()
    client.connection.shutdown(socket.SHUT_WR)
    return number


@pytest.mark.parametrize("extra", ["handshake_first: true", "handshake_first: auto"])
async def test_a_server_that_wants_tls_first_is_found_out(authority: Authority, work: Path, extra: str) -> None:
    server = Server.start(work, "first", _tls(authority, "first", extra), scheme="tls")
    relay = RunningRelay.start(server.upstream(authority.pem, Place.LEAF))
    with RawClient(relay.port) as client:
        assert client.info()["server_name"] == "first"
    server.stop()


def test_a_server_that_was_too_busy_to_answer_is_not_taken_for_one_that_refuses(
    authority: Authority, work: Path
) -> None:
    server = Server.start(work, "busy", _tls(authority, "busy"), scheme="tls")
    dialler, upstream = Dialler(), server.upstream(authority.pem, Place.LEAF)
    server.process.suspend()
    answers = [dialler.attempt(upstream, None)]
    server.process.resume()
    answers += [
        dialler.attempt(upstream, None) for _ in range(2)
    ]  # the first one takes it for one that wants TLS first
    assert [answer.reach for answer in answers] == [Reach.SILENT, Reach.SILENT, Reach.WORKS]
    # It is known by now.
    server.process.suspend()
    answers = [dialler.attempt(upstream, None)]
    server.process.resume()
    answers.append(dialler.attempt(upstream, None))
    assert [answer.reach for answer in answers] == [Reach.SILENT, Reach.WORKS]
    server.stop()


@pytest.mark.parametrize(
    ("current", "reach"), [(None, Reach.SILENT), (Place.LEAF, Reach.SILENT), (Place.HUB, Reach.WORKS)]
)
def test_from_the_hub_a_leaf_on_a_busy_node_is_waited_for_longer(current: Place | None, reach: Reach) -> None:
    hub = Upstream(Place.HUB, (f"nats://127.0.0.1:{free_port()}",), None)
    with socket.create_server(("127.0.0.1", 0)) as slow:
        leaf = Upstream(Place.LEAF, (f"nats://127.0.0.1:{slow.getsockname()[1]}",), None)

        def answer() -> None:
            with slow.accept()[0] as connection, contextlib.suppress(ConnectionError):
                connection.sendall(b"INFO {}\r\n")

        answering = threading.Timer(sum(TIMEOUTS.values()) / 2, answer)
        answering.start()
        looked = Dialler().look(Look(current, login=False), leaf, hub, held())
        answering.join()
    assert looked.leaf.reach is reach


def test_a_leaf_that_answered_before_is_waited_for_as_long_as_clients_wait() -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as opened:

        def answer() -> None:
            accepted[-1].sendall(b'INFO {"server_name": "busy"}\r\n')

        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        relay = RunningRelay.start(Upstream(Place.LEAF, (url,), None))
        for delay in (0.0, (TIMEOUTS[Place.LEAF] + KNOWN_LEAF) / 2):
            client = opened.enter_context(RawClient(relay.port))
            accepted.append(opened.enter_context(listener.accept()[0]))
            answering = threading.Timer(delay, answer)
            answering.start()
            assert client.info()["server_name"] == "busy"
            answering.join()
            assert isinstance(relay.reports.get(timeout=5), Connected)


def test_a_leaf_that_refuses_is_reported_at_once_also_when_it_answered_before(server: Server) -> None:
    relay = RunningRelay.start(server.upstream(place=Place.LEAF))
    with RawClient(relay.port) as client:
        client.info()
    assert isinstance(relay.reports.get(timeout=5), Connected)
    server.stop()
    with RawClient(relay.port) as client:
        assert client.line() == ""
    told = [relay.reports.get(timeout=5) for _ in range(3)]
    refusals = [report for report in told if isinstance(report, Trouble) and report.problem is not None]
    assert len(refusals) >= 2, "a dial that waits would have been the only one"
    assert all("refuses the connection" in str(report.problem) for report in refusals)


def test_a_server_with_a_certificate_of_another_authority_is_refused_with_a_sentence(
    authority: Authority, work: Path
) -> None:
    server = Server.start(work, "secure", _tls(authority, "secure"), scheme="tls")
    relay = RunningRelay.start(server.upstream(Authority.create(work / "pki").pem))
    with RawClient(relay.port) as client:
        assert client.line() == ""
    report = relay.reports.get(timeout=10)
    assert isinstance(report, Trouble)
    assert f"the certificate of {server.url} is not trusted" in str(report.problem)
    server.stop()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("wss://127.0.0.1:{}", "connects to tls:// and nats:// only"),
        ("tls://127.0.0.1:{}", "the server offers no TLS"),
        ("nats://127.0.0.1:1", "refuses the connection"),
        ("nats://no.such.host.invalid:{}", "does not answer"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(server: Server, url: str, says: str) -> None:
    relay = RunningRelay.start(Upstream(Place.HUB, (url.format(server.port),), None))
    with RawClient(relay.port, timeout=20) as client:
        assert client.line() == ""
    report = relay.reports.get(timeout=10)
    assert isinstance(report, Trouble)
    assert says in str(report.problem)


def test_of_several_servers_one_that_works_is_found(server: Server) -> None:
    relay = RunningRelay.start(Upstream(Place.HUB, ("nats://127.0.0.1:1", server.url), None))
    for _ in range(4):
        with RawClient(relay.port) as client:
            assert client.info()["server_name"] == "one"
