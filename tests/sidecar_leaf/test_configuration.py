"""Changes of the configuration: what is reloaded, what needs a restart, and who is never signalled."""

from __future__ import annotations

import os
import socket
import ssl
import sys

import pytest

from localcluster.process import LocalProcess
from localcluster.stack import find_program
from tests.natskit import eventually
from tests.sidecar_leaf.conftest import MakePod
from tests.sidecar_leaf.world import MEGABYTE, LeafPod, World


def limits(pod: LeafPod) -> tuple[int, int]:
    """File and memory storage of the running server."""
    found = pod.monitor("varz").get("jetstream", {}).get("config", {})
    return found.get("max_storage", -1), found.get("max_memory", -1)


async def test_a_new_certificate_is_served_without_dropping_clients(world: World, make_pod: MakePod) -> None:
    pod = await (await make_pod()).up()
    before = served(pod)
    async with await pod.connect(world.user()) as application:
        pod.issue_certificate("second")
        await eventually(lambda: served(pod) != before, "the new certificate", 20)
        await application.settle()
        assert not application.closed.is_set()
    await eventually(lambda: pod.metric("leaf_configuration_reloads_total") == 1, "counted")
    await pod.until_connected()


async def test_other_addresses_of_the_hub_are_reloaded(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    other = f"tls://localhost:{world.to_hub.port}"
    async with await pod.connect(world.user()) as application:
        world.write_document(edge, hub=[other])
        await eventually(lambda: pod.metric("leaf_configuration_reloads_total") == 1, "reloaded", 20)
        await pod.until_connected()
        await application.settle()
        assert not application.closed.is_set()
    assert other in pod.configuration.read_text()


async def test_larger_limits_are_reloaded(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    async with await pod.connect(world.user()) as application:
        world.write_document(edge, server={"fileStorage": 20 * MEGABYTE, "memoryStorage": 15 * MEGABYTE})
        await eventually(lambda: limits(pod) == (20 * MEGABYTE, 15 * MEGABYTE), "larger", 20)
        await application.settle()
        assert not application.closed.is_set()


async def test_smaller_limits_restart_the_server_and_keep_what_is_stored(world: World, make_pod: MakePod) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    name, subject = f"S{pod.client_port}", f"live.{pod.client_port}"
    async with await pod.connect(world.user()) as application:
        await application.client.jetstream().add_stream(name=name, subjects=[subject])
        await application.client.jetstream().publish(subject, b"kept")
    world.write_document(edge, server={"fileStorage": 5 * MEGABYTE})
    assert pod.nats is not None
    await eventually(lambda: pod.nats is not None and pod.nats.returncode is not None, "ended", 20)
    pod.start_nats()  # as kubelet does
    assert limits(pod) == (5 * MEGABYTE, 10 * MEGABYTE)
    await eventually(lambda: pod.metric("leaf_restarts_total") == 1, "counted")
    async with await pod.connect(world.user()) as application:
        assert (await application.client.jetstream().stream_info(name)).state.messages == 1
    assert pod.metric("leaf_configuration_current") == 1


async def test_a_sidecar_that_starts_again_beside_a_running_server_changes_nothing(
    world: World, make_pod: MakePod
) -> None:
    pod = await (await make_pod()).up()
    loaded = pod.monitor("varz")["config_load_time"]
    pod.kill(pod.sidecar)
    pod.start_sidecar()
    await eventually(lambda: pod.metric("leaf_configuration_current") == 1, "seen", 20)
    assert pod.monitor("varz")["config_load_time"] == loaded


async def test_what_changed_while_the_sidecar_was_away_is_brought_to_the_server(
    world: World, make_pod: MakePod
) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    pod.kill(pod.sidecar)
    world.write_document(edge, server={"fileStorage": 30 * MEGABYTE})
    pod.start_sidecar()
    await eventually(lambda: limits(pod)[0] == 30 * MEGABYTE, "larger", 20)


@pytest.mark.parametrize("kind", ["another program", "another leaf", "a thread of the test", "garbage"])
async def test_a_process_that_is_not_the_leafs_nats_server_is_never_signalled(
    world: World, make_pod: MakePod, kind: str
) -> None:
    edge = await world.edge_network()
    pod = await (await make_pod(edge)).up()
    strangers: list[LocalProcess] = []
    match kind:
        case "another program":
            program = "import signal, time; signal.signal(signal.SIGHUP, lambda *_: exit(9)); time.sleep(600)"
            strangers.append(LocalProcess.start("x", [sys.executable, "-c", program], log=pod.folder / "stranger.log"))
        case "another leaf":
            config = pod.folder / "other" / "leaf.conf"
            config.parent.mkdir()
            config.write_text("port: -1\n")
            command = [find_program("nats-server"), "-c", str(config)]
            strangers.append(LocalProcess.start("x", command, log=pod.folder / "stranger.log"))
    try:
        wrong = str(strangers[0].pid if strangers else os.getpid() if kind != "garbage" else "1; rm")
        (pod.folder / "config" / "nats.pid").write_text(wrong)
        world.write_document(edge, server={"fileStorage": 11 * MEGABYTE})
        expected = "holds no process id" if kind == "garbage" else f"process {wrong} in"
        await eventually(lambda: expected in pod.log(), "refused", 20)
        assert all(stranger.returncode is None for stranger in strangers)
        assert limits(pod)[0] == 10 * MEGABYTE
        assert pod.nats is not None
        (pod.folder / "config" / "nats.pid").write_text(str(pod.nats.pid))
        world.write_document(edge, server={"fileStorage": 12 * MEGABYTE})
        await eventually(lambda: limits(pod)[0] == 12 * MEGABYTE, "reloaded when the process is known", 20)
    finally:
        for stranger in strangers:
            stranger.stop()


async def test_a_reload_that_the_server_refuses_is_reported_and_the_leaf_goes_on(
    world: World, make_pod: MakePod
) -> None:
    pod = await (await make_pod()).up()
    # A certificate that does not belong to its key: nats-server keeps the old one.
    fresh = pod.folder / "tls-broken"
    fresh.mkdir()
    (fresh / "tls.crt").write_bytes((pod.folder / "tls" / "tls.crt").read_bytes())
    (fresh / "tls.key").write_text("no key")
    link = pod.folder / ".tls.new"
    link.symlink_to(fresh.name)
    link.rename(pod.folder / "tls")
    await pod.until_says("nats-server has not taken over its new configuration", 30)
    assert pod.metric("leaf_configuration_current") == 0
    async with await pod.connect(world.user()):
        pass
    pod.issue_certificate("third")
    await eventually(lambda: pod.metric("leaf_configuration_current") == 1, "mended", 30)


def served(pod: LeafPod) -> str:
    """The certificate that a client of the leaf sees."""
    with socket.create_connection(("127.0.0.1", pod.client_port), timeout=5) as plain:
        while b"\n" not in plain.recv(4096):
            pass
        with ssl.create_default_context(cadata=pod.authority.pem).wrap_socket(
            plain, server_hostname="localhost"
        ) as tls:
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True) or b"")
