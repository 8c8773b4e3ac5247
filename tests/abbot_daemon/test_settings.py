"""The configuration file: what it means, and what is said about mistakes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from abbot.settings import parse_settings, read_settings
from abbot.socketline import configured_socket, socket_line
from edgefarm.errors import InvalidResource, SettingsError

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
FULL = """\
dataDir: /data/abbot
socket: /data/abbot.sock
logLevel: debug
health: {host: '::1', port: 9000}
repairEvery: 10s
forwarding: true
interfaces:
- metadata: {name: br0, mtu: 1400, addresses: [10.0.0.1/24], deleteOnExit: true}
  bridge: {learning: true}
- metadata: {name: wg0}
  wireguard: {listenPort: 51820, peers: [{publicKey: abc, allowedIps: [10.1.0.0/16], use: WHEN_ALIVE}]}
wireguard: {backend: userspace, program: /opt/wireguard-go}
paths: {probeEvery: 1s, deadAfter: 3s}
container: {pluginDirs: [/cni], bridge: br1, mtu: 1300, template: /etc/abbot/conflist, masquerade: false,
            meshInterfaces: [wg+, tun0]}
"""


def test_nothing_written_gives_the_defaults() -> None:
    settings = parse_settings("", {})
    assert settings.data_dir == Path("/var/lib/abbot")
    assert settings.socket == "/run/abbot/abbot.sock"
    assert settings.repair_every == timedelta(seconds=30)
    assert settings.paths.dead_after == timedelta(seconds=15)
    assert settings.container.plugin_dirs == (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    assert settings.health.port == 0
    assert not settings.interfaces


def test_everything_can_be_written() -> None:
    settings = parse_settings(FULL, {})
    assert settings.data_dir == Path("/data/abbot")
    assert settings.container.data_dir == Path("/data/abbot")
    assert settings.container.template == Path("/etc/abbot/conflist")
    assert settings.container.mesh_interfaces == ("wg+", "tun0")
    assert settings.wireguard.backend == "userspace"
    bridge, tunnel = settings.interfaces
    assert (bridge.provider, bridge.metadata.name, bridge.metadata.delete_on_exit) == ("static", "br0", True)
    assert bridge.bridge.learning
    assert tunnel.wireguard.peers[0].allowed_ips == ["10.1.0.0/16"]


def test_the_environment_comes_before_the_file() -> None:
    environ = {"ABBOT_SOCKET": "/s", "ABBOT_DATA_DIR": "/d", "ABBOT_LOG_LEVEL": "error"}
    settings = parse_settings(FULL, environ)
    assert (settings.socket, settings.data_dir, settings.log_level) == ("/s", Path("/d"), "error")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("socket: abbot.sock", "socket: 'abbot.sock' is not an absolute path"),
        (f"socket: /{'s' * 104}", "socket: has more than 103 bytes"),
        ("{socket: /a/b}", "socket: must stand in a line of its own"),
        ("logLevel: loud", "logLevel: 'loud' is not known: write debug or info"),
        ("datadir: /x", "datadir: is not known"),
        ("health: {port: 70000}", "health.port: must be a whole number from 0 to 65535"),
        ("repairEvery: often", "repairEvery: 'often' is not a duration"),
        ("forwarding: 2", "forwarding: must be true or false"),
        ("wireguard: {backend: go}", "wireguard.backend: 'go' is not known: write auto or kernel or userspace"),
        ("paths: {probeEvery: 10s}", "paths.deadAfter: must be at least twice paths.probeEvery"),
        ("container: {bridge: a-name-that-is-too-long}", "container.bridge: 'a-name-that-is-too-long' cannot name"),
        ("interfaces: {}", "interfaces: must be a list of objects"),
        ("interfaces: [{bride: {}}]", 'no field named "bride"'),
        ("interfaces: [{provider: me, bridge: {}}]", "interfaces[0].provider: must be left out"),
        ("- a", "the file: must be an object"),
        ("a: [", "the file: is not YAML (line 1)"),
    ],
)
def test_a_mistake_is_named_with_what_to_write(text: str, said: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parse_settings(text, {})
    assert said in str(caught.value)


@pytest.mark.parametrize("variable", ["ABBOT_LOG_LEVEL", "ABBOT_SOCKET", "ABBOT_DATA_DIR"])
def test_a_wrong_variable_is_named(variable: str) -> None:
    with pytest.raises(InvalidResource, match=f"^{variable}: 'wrong'"):
        parse_settings("", {variable: "wrong"})


@pytest.mark.parametrize("written", ["privateKey", "private_key"])
def test_a_private_key_may_stand_in_a_file_that_only_its_owner_reads(tmp_path: Path, written: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"interfaces: [{{metadata: {{name: wg0}}, wireguard: {{{written}: '{KEY}'}}}}]\n")
    config.chmod(0o600)
    assert read_settings(str(config), {}).interfaces[0].wireguard.private_key == KEY
    config.chmod(0o640)
    with pytest.raises(SettingsError, match="change its mode to 0600") as caught:
        read_settings(str(config), {})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "interface",
    [
        f"{{wireguard: {{privateKey: '{KEY}', listenPort: '{KEY}'}}}}",
        f"{{wireguard: {{privateKey: ['{KEY}']}}}}",
        f"{{wireguard: {{peers: [{{preSharedKey: '{KEY}', use: '{KEY}'}}]}}}}",
        f"{{wireguard: {{privateKey: '{KEY}}}}}",
    ],
)
def test_no_mistake_makes_abbot_repeat_a_key(interface: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parse_settings(f"interfaces: [{interface}]", {})
    assert KEY not in str(caught.value)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.yaml")
    for read in (read_settings, configured_socket):
        with pytest.raises(SettingsError, match="does not exist"):
            read(missing, {})


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_bytes(b"socket: \xff\xfe")
    for read in (read_settings, configured_socket):
        with pytest.raises(SettingsError, match="not text in UTF-8"):
            read(str(config), {})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("socket: /a/b.sock\n", "/a/b.sock"),
        ("logLevel: info\nsocket:   /a b  # where\n", "/a b"),
        ("socket: '/a#b'\n", "/a#b"),
        ('socket: "/a"  # x\n', "/a"),
        ("socket: /a#b\n", "/a#b"),
        ("health:\n  socket: /no\n", None),
        ("#socket: /no\n", None),
        ("socket:\n", None),
        ("", None),
    ],
)
def test_the_line_of_the_socket_is_read_as_yaml_reads_it(text: str, path: str | None) -> None:
    assert socket_line(text) == path
    if "health" not in text:
        assert parse_settings(text, {}).socket == (path or "/run/abbot/abbot.sock")
