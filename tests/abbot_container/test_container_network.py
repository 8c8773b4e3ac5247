"""ContainerNetwork with the real CNI plugins, in namespaces."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.abbot_container.conftest import IPV4, IPV6, Failed, Host, addresses, ask
from tests.netkit import needs_root_network

pytestmark = needs_root_network

WEB = {"port_map_arg": {"container_port": 80, "host_port": 8080, "protocol": "tcp"}}


def test_a_container_gets_an_address_of_the_hosts_subnet_and_a_route_to_the_host(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    answer = host.ensure("one", pod)
    (interface,) = answer["interfaces"]
    assert interface["name"] == "eth0"
    assert interface["addresses"] == ["10.77.1.2/24"]
    assert interface["mtu"] == 1500
    assert interface["hardware_address"] in pod.ip("link", "show", "dev", "eth0")
    assert "default via 10.77.1.1 dev eth0" in pod.ip("route")
    host.listen(host.space, 9000)
    host.listen(pod, 9001)
    assert ask(pod, "10.77.1.1", 9000) == "10.77.1.2"
    assert ask(pod, "127.0.0.1", 9001) == "127.0.0.1", "the loopback interface is on"
    assert host.call("query", container_id="one") == answer


def test_a_container_has_ipv4_and_ipv6_where_the_host_has_both_subnets(host: Host) -> None:
    host.configure(ipv6=IPV6)
    pod = host.pod("pod")
    assert host.addresses("one", pod) == ["10.77.1.2", "fd00:77:1::2"]
    host.listen(host.space, 9000)
    assert ask(pod, "fd00:77:1::1", 9000) == "fd00:77:1::2"


def test_a_container_has_ipv6_only_where_the_host_has_only_that(host: Host) -> None:
    host.configure(ipv4="", ipv6=IPV6)
    assert host.addresses("one", host.pod("pod")) == ["fd00:77:1::2"]


def test_containers_of_a_host_reach_each_other_with_their_own_addresses(host: Host) -> None:
    host.configure(ipv6=IPV6)
    one, two = host.pod("one"), host.pod("two")
    host.ensure("one", one)
    first = host.addresses("two", two)
    host.listen(two, 9000)
    assert [ask(one, address, 9000) for address in first] == ["10.77.1.2", "fd00:77:1::2"]


def test_a_container_that_has_its_network_keeps_it_when_it_is_ensured_again(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    first = host.ensure("one", pod, cap_args=[WEB])
    before = host.state()
    assert host.ensure("one", pod, cap_args=[WEB]) == first
    assert host.call("ensure", container_id="one") == first, "without arguments it gets what it had"
    assert host.state() == before


def test_a_network_that_somebody_destroyed_is_made_anew_with_the_same_address(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    host.ensure("one", pod)
    pod.ip("link", "delete", "eth0")
    with pytest.raises(Failed, match="eth0"):
        host.call("query", container_id="one")
    assert host.addresses("one", pod) == ["10.77.1.2"]


def test_rules_for_ports_that_somebody_flushed_are_made_anew(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    host.ensure("one", pod, cap_args=[WEB])
    host.listen(pod, 80)
    host.space.run(["nft", "flush", "ruleset"])
    with pytest.raises(Failed, match="container one: the rules for its ports of the host are missing"):
        host.call("query", container_id="one")
    host.ensure("one", pod, cap_args=[WEB])
    host.call("query", container_id="one")
    host.ensure("two", two := host.pod("two"))
    assert ask(two, "10.77.1.1", 8080)


def test_deleting_leaves_nothing_behind_and_may_be_repeated(host: Host) -> None:
    host.configure(ipv6=IPV6)
    before = host.state()
    pod = host.pod("pod")
    host.ensure("one", pod)
    assert host.state() != before
    for _ in range(2):
        host.delete("one", netns=str(pod.path))
        assert host.state() == before
    assert "eth0" not in pod.ip("link")


def test_deleting_works_when_the_namespace_has_gone(host: Host) -> None:
    host.configure()
    before = host.state()
    pod = host.pod("pod")
    host.ensure("one", pod)
    host.spaces.remove(pod)
    host.delete("one", netns=str(pod.path))
    assert host.state() == before


def test_deleting_removes_the_hosts_end_when_a_process_keeps_a_namespace_that_has_no_path_any_more(host: Host) -> None:
    host.configure()
    before = host.state()
    pod = host.pod("pod")
    host.ensure("one", pod)
    keeper = subprocess.Popen(["ip", "netns", "exec", pod.name, "sleep", "60"])
    try:
        subprocess.run(["umount", str(pod.path)], check=True)
        host.delete("one", netns=str(pod.path))
        assert host.state() == before
    finally:
        keeper.kill()
        keeper.wait()


def test_deleting_a_container_that_nobody_knows_is_done(host: Host) -> None:
    before = host.state()
    host.delete("never-seen", netns="/run/netns/nowhere")
    assert host.state() == before


def test_another_container_under_the_path_of_a_dead_one_is_not_touched(host: Host) -> None:
    host.configure()
    dead, living = host.pod("dead"), host.pod("living")
    host.ensure("dead", dead)
    host.ensure("living", living)
    # What happens when a process id comes again: the old path leads to the new container's namespace.
    subprocess.run(["umount", str(dead.path)], check=True)
    subprocess.run(["mount", "--bind", str(living.path), str(dead.path)], check=True)
    host.delete("dead")
    assert "10.77.1.3" in living.ip("address")
    host.call("query", container_id="living")


def test_a_container_in_a_new_namespace_gets_its_address_and_ports_again(host: Host) -> None:
    host.configure(ipv6=IPV6)
    other, old = host.pod("other"), host.pod("old")
    host.ensure("other", other)
    before = host.addresses("one", old, cap_args=[WEB])
    host.spaces.remove(old)
    host.spaces.remove(other)
    # After a reboot the host knows only what is on disk.
    host.space.ip("link", "delete", "abbot0")
    host.space.run(["nft", "flush", "ruleset"])
    new = host.pod("new")
    assert addresses(host.call("restore", container_id="one", netns=str(new.path))) == before
    host.listen(new, 80)
    assert ask(new, "10.77.1.1", 8080), "its port is there again"


def test_a_container_that_never_had_a_network_cannot_be_restored(host: Host) -> None:
    host.configure()
    with pytest.raises(Failed, match="container one has no network; ensure one"):
        host.call("restore", container_id="one", pid=1)
    with pytest.raises(Failed, match="container one has no network"):
        host.call("query", container_id="one")


def test_a_query_tells_when_the_namespace_has_gone(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    host.ensure("one", pod)
    host.spaces.remove(pod)
    with pytest.raises(Failed, match="container one: its network namespace has gone"):
        host.call("query", container_id="one")


def test_a_port_of_the_host_leads_to_the_container(host: Host) -> None:
    host.configure()
    host.spaces.link(outside := host.spaces.add("out"), "eth0", host.space, "eth0", a_addresses=["192.0.2.2/24"],
                     b_addresses=["192.0.2.1/24"])  # fmt: skip
    pod = host.pod("pod")
    host.ensure("one", pod, cap_args=[WEB])
    host.listen(pod, 80)
    assert ask(outside, "192.0.2.1", 8080) == "192.0.2.2"
    host.call("query", container_id="one")
    host.delete("one")
    assert ask(outside, "192.0.2.1", 8080) == ""


def test_a_port_on_which_the_host_listens_is_refused_and_nothing_is_left(host: Host) -> None:
    host.configure()
    pod = host.pod("one")
    before = host.state()
    host.listen(host.space, 8080)
    with pytest.raises(Failed, match="container one: a program of the host listens on port 8080/tcp: end it, or"):
        host.ensure("one", pod, cap_args=[WEB])
    assert host.state() == before
    host.ensure("one", pod, cap_args=[{"port_map_arg": {**WEB["port_map_arg"], "host_port": 8081}}])


def test_a_port_that_another_container_has_is_refused_and_nothing_is_left(host: Host) -> None:
    host.configure()
    host.ensure("one", host.pod("one"), cap_args=[WEB])
    before = host.state()
    with pytest.raises(Failed, match="container two: host port 8080/tcp is taken by container one"):
        host.ensure("two", host.pod("two"), cap_args=[WEB])
    assert host.state() == before


def test_the_bandwidth_of_a_container_is_limited(host: Host) -> None:
    host.configure()
    before = host.state()
    pod = host.pod("pod")
    limit = {"ingress_rate": 8_000_000, "ingress_burst": 8_000_000, "egress_rate": 8_000_000, "egress_burst": 8_000_000}
    host.ensure("one", pod, cap_args=[{"bandwidth_arg": limit}])
    assert host.space.run(["tc", "qdisc"]).count("qdisc tbf") == 2
    host.call("query", container_id="one")
    host.delete("one")
    assert host.state() == before


def test_a_container_may_ask_for_an_address_a_range_and_a_mac(host: Host) -> None:
    host.configure(ipv6=IPV6)
    asked = [{"ip_addresses_arg": {"ips": ["10.77.1.77/24"]}}, {"mac_address_arg": {"mac": "02:42:ac:11:00:02"}}]
    answer = host.ensure("one", host.pod("one"), cap_args=asked)
    assert answer["interfaces"][0]["hardware_address"] == "02:42:ac:11:00:02"
    assert addresses(answer)[0] == "10.77.1.77"
    ranged = [{"ip_range_arg": {"subnet": IPV4, "range_start": "10.77.1.200", "range_end": "10.77.1.210"}}]
    assert host.addresses("two", host.pod("two"), cap_args=ranged) == ["10.77.1.200", "fd00:77:1::3"]


def test_a_range_outside_the_hosts_subnets_is_refused(host: Host) -> None:
    host.configure()
    foreign = [{"ip_range_arg": {"subnet": "10.99.0.0/24"}}]
    with pytest.raises(Failed, match=r"10\.99\.0\.0/24 .* does not fit the host's subnets \(10\.77\.1\.0/24\)"):
        host.ensure("one", host.pod("pod"), cap_args=foreign)


def test_arguments_of_the_runtime_reach_the_plugins(host: Host) -> None:
    host.configure()
    args = {"K8S_POD_NAME": "web-0", "IP": "10.77.1.99"}
    assert host.addresses("one", host.pod("pod"), cni_args=args) == ["10.77.1.99"]


def test_a_pid_names_the_namespace_of_a_process(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    process = subprocess.Popen(["ip", "netns", "exec", pod.name, "cat"], stdin=subprocess.PIPE)
    try:
        # `ip netns exec` has entered the namespace before it executes the program.
        while "10.77" not in pod.ip("address"):
            try:
                answer = host.call("ensure", container_id="one", pid=process.pid)
            except Failed as error:
                assert "the host's own network namespace" in str(error)  # noqa: PT017
        assert answer["pid"] == process.pid
        assert addresses(answer) == ["10.77.1.2"]
    finally:
        process.communicate()


def test_the_hosts_own_namespace_is_no_container(host: Host) -> None:
    host.configure()
    before = host.state()
    with pytest.raises(Failed, match="the host's own network namespace"):
        host.call("ensure", container_id="one", netns=str(host.space.path))
    assert host.state() == before


def test_a_host_without_subnets_says_that_it_waits_for_them(host: Host) -> None:
    with pytest.raises(Failed, match="this host has no subnets for containers yet"):
        host.ensure("one", host.pod("pod"))


def test_missing_plugins_are_named_with_where_they_were_looked_for(host: Host) -> None:
    bare = host.with_(plugin_dirs=(host.data_dir / "nothing",))
    bare.configure()
    before = bare.state()
    with pytest.raises(Failed, match=r"no CNI plugin 'bridge' in .*nothing: install it"):
        bare.ensure("one", bare.pod("pod"))
    assert bare.state() == before


def test_containers_that_start_together_get_different_addresses(host: Host) -> None:
    host.configure()
    pods = [host.pod(f"pod{number}") for number in range(6)]
    commands = [["ip", "netns", "exec", host.space.name, *host.command("ensure")] for _ in pods]
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for command in commands]
    for number, (process, pod) in enumerate(zip(running, pods, strict=True)):
        assert process.stdin is not None
        process.stdin.write(json.dumps({"container_id": f"pod{number}", "netns": str(pod.path)}).encode())
        process.stdin.close()
        process.stdin = None
    outcomes = [json.loads(process.communicate(timeout=60)[0]) for process in running]
    given = [addresses(outcome["answer"])[0] for outcome in outcomes]
    assert len(set(given)) == len(pods)
