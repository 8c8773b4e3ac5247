"""`abbot-cni` as a runtime sees it: the sequences of cnitool, and what the specification says about errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from abbot.client import call
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import pack_request
from tests.abbot_container.conftest import IPV6, PLUGINS, Host, ask
from tests.abbot_container.runtime import Runtime
from tests.netkit import needs_root_network

PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}


@pytest.fixture
def runtime(host: Host) -> Runtime:
    """A runtime on the host, whose abbot daemon serves."""
    work = host.data_dir.parent
    socket = work / "abbot.sock"
    settings = work / "abbot.yaml"
    settings.write_text(
        f"dataDir: {host.data_dir}\nsocket: {socket}\ncontainer: {{pluginDirs: [{PLUGINS}]}}\n",
    )
    command = [sys.executable, "-m", "abbot", "-c", str(settings), "daemon"]
    daemon = host.space.start("daemon", command, log=work / "daemon.log")
    daemon.wait_until(lambda: Path(f"{socket}.raw").exists(), "serving")
    return Runtime(host.space, str(socket))


@pytest.fixture
def alone(work: Path) -> Runtime:
    """A runtime where no daemon runs."""
    return Runtime(None, str(work / "abbot.sock"))


def configure(runtime: Runtime, **config: Any) -> None:
    """Tell the daemon the host's subnets."""
    request = json_format.ParseDict({"ipv4_subnet": "10.77.1.0/24", **config}, pb.ContainerNetworkConfigEnsureRequest())
    call(runtime.socket, pack_request(request), timeout=30)


@needs_root_network
@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_add_check_and_delete_follow_each_other_and_leave_nothing_behind(
    runtime: Runtime, host: Host, version: str
) -> None:
    runtime.version = version
    configure(runtime, ipv6_subnet=IPV6, dns={"servers": ["10.96.0.10"], "searches": ["cluster.local"]})
    before = host.state()
    pod = host.pod("pod")
    result = runtime.add("c1", pod, args="IgnoreUnknown=1;K8S_POD_NAME=web-0")
    (interface,) = result["interfaces"]
    assert interface == {"name": "eth0", "mac": interface["mac"], "sandbox": str(pod.path)}
    assert interface["mac"] in pod.ip("link")
    assert result == {
        "cniVersion": version,
        "interfaces": [interface],
        "ips": [
            {"address": "10.77.1.2/24", "interface": 0, "gateway": "10.77.1.1"},
            {"address": "fd00:77:1::2/64", "interface": 0, "gateway": "fd00:77:1::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.77.1.1"}, {"dst": "::/0", "gw": "fd00:77:1::1"}],
        "dns": {"nameservers": ["10.96.0.10"], "search": ["cluster.local"]},
    }
    assert "default via 10.77.1.1" in pod.ip("route"), "what the result says is what is"
    assert "default via fd00:77:1::1" in pod.ip("-6", "route")
    assert (runtime.check("c1", pod).status, runtime.check("c1", pod).stdout) == (0, "")
    assert runtime.add("c1", pod, args="IgnoreUnknown=1;K8S_POD_NAME=web-0") == result
    runtime.delete("c1", str(pod.path))
    runtime.delete("c1", str(pod.path))
    assert host.state() == before


@needs_root_network
def test_deleting_works_without_a_namespace_and_for_containers_that_nobody_knows(runtime: Runtime, host: Host) -> None:
    configure(runtime)
    before = host.state()
    pod = host.pod("pod")
    runtime.add("c1", pod)
    host.spaces.remove(pod)
    runtime.delete("c1", "")
    runtime.delete("unknown", "")
    runtime.delete("unknown", "/run/netns/nowhere")
    assert host.state() == before


@needs_root_network
def test_check_tells_what_is_missing(runtime: Runtime, host: Host) -> None:
    configure(runtime)
    pod = host.pod("pod")
    result = runtime.add("c1", pod)
    runtime.results["c1"] = {**result, "ips": [{"address": "10.77.1.99/24", "interface": 0}]}
    assert runtime.check("c1", pod).answer["msg"] == "container c1 has lost 10.77.1.99/24"
    runtime.results["c1"] = result
    pod.ip("link", "set", "eth0", "down")
    pod.ip("address", "flush", "dev", "eth0")
    outcome = runtime.check("c1", pod)
    assert outcome.status == 1
    assert outcome.answer["msg"].startswith("container c1: CNI plugin bridge (CHECK): ")
    assert outcome.answer["code"] == 100
    runtime.results["c2"] = result
    assert "container c2 has no network" in runtime.check("c2", pod).answer["msg"]


@needs_root_network
def test_capabilities_and_dns_of_the_runtime_are_passed_on(runtime: Runtime, host: Host) -> None:
    configure(runtime, dns={"servers": ["10.96.0.10"]})
    pod = host.pod("pod")
    asked = {
        **PORTS,
        "mac": "02:42:ac:11:00:02",
        "ips": ["10.77.1.77/24"],
        "dns": {"servers": ["192.0.2.53"], "options": ["ndots:2"]},
        "bandwidth": {"ingressRate": 80_000_000, "ingressBurst": 80_000_000},
    }
    result = runtime.add("c1", pod, runtimeConfig=asked)
    assert result["interfaces"][0]["mac"] == "02:42:ac:11:00:02"
    assert result["ips"][0]["address"] == "10.77.1.77/24"
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "options": ["ndots:2"]}
    host.listen(pod, 80)
    host.ensure("other", other := host.pod("other"))
    assert ask(other, "10.77.1.1", 8080)
    assert "qdisc tbf" in host.space.run(["tc", "qdisc"])
    taken = runtime.call("ADD", {"runtimeConfig": PORTS}, containerid="c2", netns=str(other.path), ifname="eth0")
    assert taken.answer["msg"] == "container c2: host port 8080/tcp is taken by container c1"


@needs_root_network
def test_each_interface_of_a_container_is_deleted_by_itself(runtime: Runtime, host: Host) -> None:
    configure(runtime, ipv6_subnet="")
    pod = host.pod("pod")
    runtime.add("c1", pod)
    refused = runtime.call("ADD", {}, containerid="c1", netns=str(pod.path), ifname="a/b")
    assert refused.status == 1
    runtime.call("DEL", {}, containerid="c1", netns=str(pod.path), ifname="eth1")
    assert runtime.check("c1", pod).status == 0


@needs_root_network
def test_results_of_plugins_before_it_are_kept(runtime: Runtime, host: Host) -> None:
    configure(runtime)
    before = {
        "interfaces": [{"name": "dummy0", "sandbox": "/x"}],
        "ips": [{"address": "192.0.2.7/32", "interface": 0}],
        "routes": [{"dst": "192.0.2.0/24"}],
    }
    result = runtime.add("c1", host.pod("pod"), prevResult=before, dns={"nameservers": ["192.0.2.53"]})
    assert [interface["name"] for interface in result["interfaces"]] == ["dummy0", "eth0"]
    assert [(ip["address"], ip["interface"]) for ip in result["ips"]] == [("192.0.2.7/32", 0), ("10.77.1.2/24", 1)]
    assert [route["dst"] for route in result["routes"]] == ["192.0.2.0/24", "0.0.0.0/0"]
    assert result["dns"] == {"nameservers": ["192.0.2.53"]}


@needs_root_network
def test_containers_that_runtimes_start_together_get_different_addresses(runtime: Runtime, host: Host) -> None:
    configure(runtime)
    pods = [host.pod(f"pod{number}") for number in range(5)]
    config = {"cniVersion": "1.0.0", "name": "edgefarm", "type": "abbot-cni", "socket": runtime.socket}
    running = []
    for pod in pods:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": pod.name,
            "CNI_NETNS": str(pod.path),
            "CNI_IFNAME": "eth0",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "abbot.cni"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None
        running.append(process)
    results = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    assert len({result["ips"][0]["address"] for result in results}) == len(pods)


@needs_root_network
def test_status_is_good_from_when_the_host_has_subnets(runtime: Runtime, host: Host) -> None:
    outcome = runtime.call("STATUS")
    assert (outcome.status, outcome.answer["code"]) == (1, 50)
    assert "this host has no subnets for containers yet" in outcome.answer["msg"]
    configure(runtime)
    assert runtime.call("STATUS") == type(outcome)(0, "")


def test_version_tells_which_versions_there_are(alone: Runtime) -> None:
    assert alone.call("VERSION").answer == {"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}


def test_the_daemons_absence_is_told_with_the_codes_of_the_specification(alone: Runtime) -> None:
    environment = {"containerid": "c1", "netns": "/run/netns/x", "ifname": "eth0"}
    codes = {
        command: alone.call(command, **environment).answer["code"] for command in ("ADD", "DEL", "CHECK", "STATUS")
    }
    assert codes == {"ADD": 11, "DEL": 11, "CHECK": 11, "STATUS": 50}
    answer = alone.call("ADD", **environment).answer
    assert answer["cniVersion"] == "1.0.0"
    assert "start `abbot daemon`" in answer["msg"]
    assert alone.call("GC", **environment).status == 0


@pytest.mark.parametrize(
    ("config", "code", "message"),
    [
        ("", 6, "the network configuration on stdin is no JSON"),
        ("\x00\xff", 6, "the network configuration on stdin is no JSON"),
        ("[" * 100_000, 6, "the network configuration on stdin is no JSON"),
        ("[1]", 6, "the network configuration on stdin is no JSON object"),
        ("{}", 1, "cniVersion None is not supported"),
        ('{"cniVersion": "0.4.0"}', 1, "cniVersion '0.4.0' is not supported"),
        ({"runtimeConfig": []}, 7, "runtimeConfig must be an object"),
        ({"prevResult": 7}, 7, "prevResult must be an object"),
        ({"socket": 7}, 7, "socket must be a text"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}, 7, "runtimeConfig is not as CNI's conventions say"),
        ({"runtimeConfig": {"portMappings": [7]}}, 7, "runtimeConfig is not as CNI's conventions say"),
        ({"runtimeConfig": {"dns": {"server": []}}}, 7, "runtimeConfig is not as CNI's conventions say"),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 1 << 40}}}, 7, "runtimeConfig is not as CNI's"),
        ({"runtimeConfig": {"ipRanges": {"subnet": "x"}}}, 7, "runtimeConfig is not as CNI's conventions say"),
    ],
)
def test_a_wrong_configuration_is_told_as_the_specification_says(
    alone: Runtime, config: Any, code: int, message: str
) -> None:
    outcome = alone.call("ADD", config, containerid="c1", netns="/run/netns/x", ifname="eth0")
    assert outcome.status == 1
    assert outcome.answer["code"] == code
    assert outcome.answer["msg"].startswith(message)


@pytest.mark.parametrize(
    ("command", "environment", "message"),
    [
        ("", {}, "CNI_COMMAND '' must be ADD, DEL, CHECK, GC, STATUS or VERSION"),
        ("add", {}, "CNI_COMMAND 'add' must be ADD"),
        ("ADD", {"containerid": "c1", "ifname": "eth0"}, "ADD needs CNI_NETNS in the environment"),
        ("DEL", {}, "DEL needs CNI_CONTAINERID, CNI_IFNAME in the environment"),
        ("CHECK", {"containerid": "c1"}, "CHECK needs CNI_NETNS, CNI_IFNAME in the environment"),
        ("DEL", {"containerid": "c1", "ifname": "eth0", "args": "A"}, "CNI_ARGS must be NAME=value pairs"),
        ("DEL", {"containerid": "c1", "ifname": "eth0", "args": "A=b=c"}, "CNI_ARGS must be NAME=value pairs"),
    ],
)
def test_a_wrong_environment_is_told_as_the_specification_says(
    alone: Runtime, command: str, environment: dict[str, str], message: str
) -> None:
    answer = alone.call(command, **environment).answer
    assert answer["code"] == 4
    assert answer["msg"].startswith(message)


@needs_root_network
def test_whatever_a_runtime_sends_it_is_answered_in_json(runtime: Runtime, host: Host) -> None:
    configure(runtime)
    pod = host.pod("pod")
    runtime.add("c1", pod)
    runtime.results["c1"] = {"interfaces": [], "ips": [{"address": "10.77.1.2/24", "interface": []}]}
    outcome = runtime.check("c1", pod)
    assert outcome.status == 1
    assert (outcome.answer["code"], outcome.answer["msg"]) == (100, "abbot-cni cannot work with this call")


def test_the_plugin_imports_nothing_heavy() -> None:
    heavy = ["asyncio", "cryptography", "grpc", "prometheus_client", "pyroute2", "structlog", "yaml"]
    script = f"import sys, abbot.cni; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"
