"""`abbot daemon` as a process: requests, restarts, repairs, and its end."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from abbot.client import RequestFailed
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request, unpack_response
from localcluster.netns import Namespaces
from tests.abbot_daemon.kit import Abbot, bridge, wait_until
from tests.netkit import needs_root_network, spaces

pytestmark = needs_root_network
__all__ = ["spaces"]

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture
def host(spaces: Namespaces, work: Path) -> Callable[..., Abbot]:
    """Makes an abbot in a namespace of its own."""

    def make(short: str = "host", **config: Any) -> Abbot:
        return Abbot(spaces.add(short), work / short, config)

    return make


def test_gRPC_and_process_get_the_same_answers(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()
    abbot.ensure("p", bridge("br7", "10.7.0.1/24"))
    request = pack_request(pb.HostNetworkConfigQueryRequest(providers=["p"]))
    with grpc.insecure_channel(f"unix:{abbot.socket}") as channel:
        by_grpc = unpack_response(channel.unary_unary("/abbot.NetworkManager/Process")(request, timeout=10))
    done = abbot.command(stdin=request)
    assert done.returncode == 0, done.stderr
    by_variables = abbot.command(ABBOT_REQ_ACTION="host:query", ABBOT_REQ_HOST_PROVIDER="p")
    assert done.stdout == by_variables.stdout
    assert isinstance(by_grpc, pb.HostNetworkConfigResponse)
    assert [interface.metadata.name for interface in by_grpc.actual] == ["br7"]
    assert "10.7.0.1/24" in by_grpc.actual[0].metadata.addresses
    unmanaged = {interface.metadata.name for interface in abbot.query() if not interface.provider}
    assert "lo" in unmanaged


def test_a_refused_request_is_one_sentence_and_no_trace(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()
    tunnel = pb.HostNetworkInterface(
        metadata=pb.NetworkInterface(name="wg7"), wireguard=pb.DriverWireguard(private_key=KEY[:-5])
    )
    request = pb.HostNetworkConfigEnsureRequest(provider="p", expected=[tunnel])
    done = abbot.command(stdin=pack_request(request))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"wg7" in done.stderr
    assert KEY[:-5].encode() not in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert KEY[:-5] not in abbot.log.read_text()
    with pytest.raises(RequestFailed, match="'static' is reserved"):
        abbot.ensure("static", bridge("br7"))


def test_fifty_clients_at_once_are_all_served(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()

    def one(number: int) -> list[str]:
        made = abbot.ensure(f"p{number}", bridge(f"br{number}"))
        return [interface.metadata.name for interface in made]

    with ThreadPoolExecutor(50) as clients:
        made = list(clients.map(one, range(50)))
    assert made == [[f"br{number}"] for number in range(50)]
    assert {f"br{number}" for number in range(50)} <= abbot.links()


def test_static_interfaces_follow_the_configuration(host: Callable[..., Abbot]) -> None:
    static = [{"metadata": {"name": "br1", "addresses": ["10.1.0.1/24"]}, "bridge": {}}]
    abbot = host(interfaces=static)
    abbot.start()
    (made,) = abbot.query("static")
    assert made.metadata.name == "br1"
    assert abbot.page("/readyz") == "ready\n"
    assert abbot.stop() == 0
    assert "br1" in abbot.links()
    abbot.configure({})
    abbot.start()
    assert "br1" not in abbot.links()


def test_a_static_interface_that_cannot_be_is_said_and_tried_again(host: Callable[..., Abbot]) -> None:
    static = [{"metadata": {"name": "br1"}, "bridge": {}}]
    abbot = host(interfaces=static, repairEvery="1s")
    abbot.space.ip("link", "add", "br1", "type", "veth", "peer", "name", "veth1")
    abbot.start()
    assert "br1" in abbot.page("/readyz")
    abbot.space.ip("link", "delete", "br1")
    wait_until(lambda: abbot.page("/readyz") == "ready\n", "ready")
    assert [interface.metadata.name for interface in abbot.query("static")] == ["br1"]


def test_what_was_deleted_is_mended(host: Callable[..., Abbot]) -> None:
    abbot = host(repairEvery="1s")
    abbot.start()
    abbot.ensure("p", bridge("br7", "10.7.0.1/24"))
    abbot.space.ip("link", "delete", "br7")
    wait_until(lambda: "br7" in abbot.links() and "10.7.0.1/24" in abbot.space.ip("address", "show", "br7"), "mended")
    wait_until(lambda: "abbot_repairs_total" in abbot.page("/metrics"), "counted")


def test_a_killed_daemon_restores_what_it_had_after_a_reboot(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()
    abbot.ensure("p", bridge("br7", "10.7.0.1/24"))
    abbot.kill()
    abbot.space.ip("link", "delete", "br7")
    # Its sockets are left: the new one takes their place.
    assert abbot.socket.exists()
    abbot.start()
    assert "10.7.0.1/24" in abbot.space.ip("address", "show", "br7")


def test_at_its_end_it_takes_along_what_shall_not_stay(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()
    abbot.ensure("p", bridge("br7", delete_on_exit=True), bridge("br8"))
    assert abbot.stop() == 0
    assert "br7" not in abbot.links()
    assert "br8" in abbot.links()
    assert not abbot.socket.exists()
    abbot.start()
    assert {"br7", "br8"} <= abbot.links()


def test_only_its_group_may_talk_to_it_and_only_it_reads_its_data(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.configure({"socket": str(abbot.folder / "run" / "s")})
    abbot.socket = abbot.folder / "run" / "s"
    abbot.start()
    modes = [stat.S_IMODE(Path(f"{abbot.socket}{end}").stat().st_mode) for end in ("", ".raw")]
    assert modes == [0o660, 0o660]
    assert stat.S_IMODE(abbot.socket.parent.stat().st_mode) == 0o750
    assert stat.S_IMODE((abbot.folder / "data").stat().st_mode) == 0o700


def test_a_second_daemon_is_refused_with_a_sentence(host: Callable[..., Abbot]) -> None:
    abbot, other = host("one"), host("other")
    abbot.start()
    for config, said in (
        ({"dataDir": str(abbot.folder / "data")}, "dataDir: another abbot daemon uses"),
        ({"socket": str(abbot.socket)}, "socket: another abbot daemon serves"),
    ):
        other.configure(config)
        assert other.launch().wait(20) == 2
        assert said in other.log.read_text()
    assert abbot.answers()


def test_a_wrong_configuration_ends_it_at_once_with_what_to_write(host: Callable[..., Abbot]) -> None:
    abbot = host(repairEvery="often")
    assert abbot.launch().wait(20) == 2
    (line,) = abbot.log.read_text().splitlines()
    assert line.startswith(f"abbot: {abbot.config}: repairEvery: 'often' is not a duration: write for example 90s")


def test_without_container_plugins_everything_else_works(host: Callable[..., Abbot], spaces: Namespaces) -> None:
    abbot = host()
    abbot.start()
    abbot.ask(pb.ContainerNetworkConfigEnsureRequest(ipv4_subnet="10.42.3.0/24"))
    with pytest.raises(RequestFailed, match="plugin"):
        abbot.ask(pb.ContainerNetworkEnsureRequest(container_id="c1", netns=str(spaces.add("pod").path)))
    done = abbot.command(ABBOT_REQ_ACTION="container:query", ABBOT_REQ_CONTAINER_ID="c1")
    assert done.returncode == 1
    abbot.ensure("p", bridge("br7"))


def test_its_log_is_json_and_says_what_it_did(host: Callable[..., Abbot]) -> None:
    abbot = host()
    abbot.start()
    tunnel = pb.HostNetworkInterface(metadata=pb.NetworkInterface(name="wg7"), wireguard=pb.DriverWireguard())
    abbot.ensure("p", tunnel)
    abbot.stop()
    lines = [json.loads(line) for line in abbot.log.read_text().splitlines()]
    assert {"restored", "started", "ending"} <= {line["event"] for line in lines}


def test_forwarding_is_switched_on_when_asked_for(host: Callable[..., Abbot]) -> None:
    abbot = host(forwarding=True, repairEvery="1s")
    abbot.space.sysctl("net.ipv4.ip_forward", 0)
    abbot.start()
    switches = ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
    assert abbot.space.run(switches) == "1\n1\n"
    abbot.space.sysctl("net.ipv4.ip_forward", 0)
    wait_until(lambda: abbot.space.run(switches) == "1\n1\n", "forwarding again")
