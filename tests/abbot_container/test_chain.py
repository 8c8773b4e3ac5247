"""What is left when a plugin in the middle of a chain fails, hangs or talks too much: nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.abbot_container.conftest import PLUGINS, Failed, Host, ask
from tests.netkit import needs_root_network

pytestmark = needs_root_network

BRIDGE: Mapping[str, Any] = {
    "type": "bridge",
    "bridge": "{{.Bridge}}",
    "isDefaultGateway": True,
    "capabilities": {"ips": True, "portMappings": False},
    "ipam": {"type": "host-local", "dataDir": "{{.IPAMDir}}", "ranges": [[{"subnet": "{{.IPv4Subnet}}"}]]},
}
PORTMAP: Mapping[str, Any] = {"type": "portmap", "capabilities": {"portMappings": True}}
WEB = {"port_map_arg": {"container_port": 80, "host_port": 8080, "protocol": "tcp"}}


def with_plugin(host: Host, script: str) -> Host:
    """The host with a third plugin after bridge and portmap: a shell script. It writes its calls to `calls`."""
    work = host.data_dir.parent
    folder = work / "plugins"
    folder.mkdir()
    plugin = folder / "spoiler"
    plugin.write_text(f"#!/bin/sh\necho $CNI_COMMAND >> {work}/calls\n{script}\n")
    plugin.chmod(0o755)
    return host.with_(plugin_dirs=(folder, PLUGINS), template=conflist(work, BRIDGE, PORTMAP, {"type": "spoiler"}))


def conflist(work: Path, *plugins: Mapping[str, Any]) -> Path:
    path = work / "template.json"
    path.write_text(json.dumps({"cniVersion": "1.0.0", "name": "own", "plugins": plugins}))
    return path


# Repeats the result of the plugin before it, as the last one of a chain must.
LAST = "python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)[\"prevResult\"]))'"
FAILS = """[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"1.0.0","code":123,"msg":"the spoiler says no","details":"as ever"}'
exit 1"""


def warmed_up(host: Host) -> Any:
    """The host's state when portmap has made the chains that it never removes."""
    host.configure()
    host.with_(template=None).ensure("first", host.pod("first"), cap_args=[WEB])
    host.with_(template=None).delete("first")
    return host.state()


def test_a_plugin_that_fails_in_the_middle_leaves_nothing_behind_and_its_words_are_told(host: Host) -> None:
    spoiled = with_plugin(host, FAILS)
    before = warmed_up(spoiled)
    with pytest.raises(Failed) as failed:
        spoiled.ensure("one", pod := host.pod("pod"), cap_args=[WEB])
    message = "container one: CNI plugin spoiler (ADD): the spoiler says no: as ever (code 123)"
    assert (failed.value.kind, str(failed.value)) == ("NetworkFailed", message)
    assert host.state() == before
    assert "eth0" not in pod.ip("link")
    assert (host.data_dir.parent / "calls").read_text().split() == ["ADD", "DEL"]


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("[ $CNI_COMMAND = DEL ] && exit 0; echo broken >&2; exit 3", "it ended with 3: broken"),
        ("[ $CNI_COMMAND = DEL ] && exit 0; exit 3", "it ended with 3 without a word"),
        ("[ $CNI_COMMAND = DEL ] && exit 0; echo '{'", "what it wrote is no JSON"),
        ("[ $CNI_COMMAND = DEL ] && exit 0; echo '[]'", "what it wrote is no CNI result"),
        ("[ $CNI_COMMAND = DEL ] && exit 0; yes", "wrote more than 1048576 bytes and was killed"),
        ("[ $CNI_COMMAND = DEL ] && exit 0; kill -9 $$", "it ended with -9 without a word"),
    ],
)
def test_a_plugin_that_behaves_badly_is_named_and_leaves_nothing_behind(
    host: Host, script: str, complaint: str
) -> None:
    spoiled = with_plugin(host, script)
    spoiled.configure()
    before = host.state()
    with pytest.raises(Failed) as failed:
        spoiled.ensure("one", host.pod("pod"))
    assert str(failed.value).startswith("container one: CNI plugin spoiler (ADD): ")
    assert complaint in str(failed.value)
    assert host.state() == before


def test_what_cannot_be_undone_is_told_and_can_be_deleted_later(host: Host) -> None:
    marker = host.data_dir.parent / "mended"
    spoiled = with_plugin(host, f"[ -e {marker} ] && exit 0; echo never >&2; exit 1")
    spoiled.configure()
    before = host.state()
    with pytest.raises(Failed, match=r"spoiler \(ADD\).*; and what was made cannot be removed: .*spoiler \(DEL\)"):
        spoiled.ensure("one", host.pod("pod"))
    with pytest.raises(Failed, match=r"spoiler \(DEL\): it ended with 1: never"):
        spoiled.delete("one")
    marker.touch()
    spoiled.delete("one")
    assert host.state() == before


def test_what_was_begun_when_the_daemon_was_killed_can_be_deleted_or_finished(host: Host) -> None:
    hangs = host.data_dir.parent / "hangs"
    hangs.touch()
    spoiled = with_plugin(host, f"[ $CNI_COMMAND = ADD ] || exit 0; [ -e {hangs} ] && exec sleep 60; {LAST}")
    spoiled.configure()
    before = host.state()
    pod = host.pod("pod")
    for finish in (False, True):
        request = json.dumps({"container_id": "one", "netns": str(pod.path)})
        script = 'echo "$1" | exec "${@:2}"'
        daemon = host.space.start(
            "daemon",
            ["bash", "-c", script, "daemon", request, *spoiled.command("ensure")],
            log=host.data_dir.parent / "daemon.log",
        )
        daemon.wait_until(lambda: "eth0" in pod.ip("link"), "in the middle of the chain")
        os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait(10)
        if finish:
            hangs.unlink()
            assert spoiled.addresses("one", pod)
        spoiled.delete("one")
        assert host.state() == before
    assert "eth0" not in pod.ip("link")


def test_a_container_keeps_what_it_had_when_a_change_fails(host: Host) -> None:
    host.configure()
    pod = host.pod("pod")
    answer = host.ensure("one", pod, cap_args=[WEB])
    taken = {"ip_addresses_arg": {"ips": ["10.77.1.3"]}}
    host.ensure("two", two := host.pod("two"))
    with pytest.raises(Failed, match=r"CNI plugin bridge \(ADD\): .*10\.77\.1\.3"):
        host.ensure("one", pod, cap_args=[taken])
    again = host.call("query", container_id="one")
    assert again["interfaces"][0]["addresses"] == answer["interfaces"][0]["addresses"]
    host.listen(pod, 80)
    assert ask(two, "10.77.1.1", 8080), "its port as well"


def test_a_capability_that_no_plugin_has_is_refused_before_anything_happens(host: Host) -> None:
    host.configure()
    before = host.state()
    with pytest.raises(Failed, match="no plugin of the conflist 'edgefarm' has the capability deviceID"):
        host.ensure("one", host.pod("pod"), cap_args=[{"device_id_arg": {"device_id": "0000:03:00.0"}}])
    assert host.state() == before
