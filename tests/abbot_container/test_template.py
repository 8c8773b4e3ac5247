"""The language of the conflist template, the nft script, and what stands on disk: without any network."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from abbot.container import masquerade
from abbot.container.network import open_container_network
from abbot.container.records import Record, Records
from abbot.container.requests import Arguments, Dns, NetworkConfig
from abbot.container.template import render
from edgefarm.errors import InvalidResource, NetworkFailed, SettingsError
from tests.abbot_container.samples import SETTINGS

BOTH = NetworkConfig(ipv4="10.77.1.0/24", ipv6="fd00:77:1::/64")


def plugin(text: dict[str, Any], config: NetworkConfig) -> Any:
    """What becomes of a plugin in a template."""
    conflist = {"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "first", **text}]}
    return render(json.dumps(conflist), config, SETTINGS).plugins[0]


@pytest.mark.parametrize(
    ("config", "ranges", "routes"),
    [
        (BOTH, [[{"subnet": BOTH.ipv4}], [{"subnet": BOTH.ipv6}]], ["0.0.0.0/0", "::/0"]),
        (NetworkConfig(ipv4=BOTH.ipv4), [[{"subnet": BOTH.ipv4}]], ["0.0.0.0/0"]),
        (NetworkConfig(ipv6=BOTH.ipv6), [[{"subnet": BOTH.ipv6}]], ["::/0"]),
    ],
)
def test_what_names_a_family_without_a_subnet_is_left_out(
    config: NetworkConfig, ranges: list[Any], routes: list[str]
) -> None:
    text = {
        "ipam": {
            "ranges": [[{"subnet": "{{.IPv4Subnet}}"}], [{"subnet": "{{ .IPv6Subnet }}"}]],
            "routes": [{"dst": "{{.IPv4DefaultRoute}}"}, {"dst": "{{.IPv6DefaultRoute}}"}],
        },
        "empty": [],
    }
    made = plugin(text, config)
    assert made["ipam"] == {"ranges": ranges, "routes": [{"dst": route} for route in routes]}
    assert made["empty"] == [], "what the user left empty stays"


def test_placeholders_become_numbers_alone_and_text_within_text() -> None:
    made = plugin({"mtu": "{{.MTU}}", "alias": "{{.Bridge}} of {{.IPv4Subnet}}", "dir": "{{.IPAMDir}}"}, BOTH)
    assert (made["mtu"], made["alias"]) == (1400, "abbot0 of 10.77.1.0/24")
    assert made["dir"] == "/var/lib/abbot/ipam"


def test_an_unknown_placeholder_is_named_with_those_that_there_are() -> None:
    with pytest.raises(InvalidResource, match="has the unknown placeholder 'Brigde'; there are IPv4Subnet, IPv6Subnet"):
        plugin({"bridge": "{{.Brigde}}"}, BOTH)


def first(text: str) -> str:
    return f'{{"cniVersion": "1.0.0", "name": "x", "plugins": [{text}]}}'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "container.template: is no JSON"),
        ("[]", "container.template: must be an object"),
        ('{"cniVersion": "0.2.0", "name": "x", "plugins": []}', "container.template.cniVersion: must be one of"),
        ('{"cniVersion": "1.0.0", "name": "../x", "plugins": []}', "container.template.name: must be of letters"),
        (first(""), "container.template.plugins: must be a list"),
        (first("7"), "container.template.plugins[0]: must be an object"),
        (first('{"type": "/bin/sh"}'), "plugins[0].type: must be the file name of a CNI plugin"),
        (first('{"type": "a", "capabilities": ["ips"]}'), "plugins[0].capabilities: must be an object"),
        (first('{"type": "a", "onlyWith": "ports"}'), "plugins[0].onlyWith: must be one of portMappings"),
        (first('{"type": "a", "ipam": 7}'), "plugins[0].ipam: must be an object"),
    ],
)
def test_a_wrong_template_is_told_at_the_start(work: Path, text: str, complaint: str) -> None:
    template = work / "template.json"
    template.write_text(text)
    settings = dataclasses.replace(SETTINGS, data_dir=work, template=template)
    with pytest.raises(SettingsError) as failed:
        open_container_network(settings, structlog.get_logger())
    assert complaint in str(failed.value)
    assert str(template) in str(failed.value)


def test_a_template_that_cannot_be_read_and_wrong_names_are_told_at_the_start(work: Path) -> None:
    settings = dataclasses.replace(SETTINGS, data_dir=work)
    with pytest.raises(SettingsError, match=r"container\.template: .*nowhere cannot be read"):
        open_container_network(dataclasses.replace(settings, template=work / "nowhere"), structlog.get_logger())
    with pytest.raises(SettingsError, match=r"container\.meshInterfaces: 'a\" accept' must be"):
        open_container_network(dataclasses.replace(settings, mesh_interfaces=('a" accept',)), structlog.get_logger())


def test_the_nft_script_spares_the_mesh_and_the_subnet_itself() -> None:
    assert masquerade.script(["10.77.1.0/24", "fd00:77:1::/64"], ["abbot0", "edgefarm*"]).splitlines() == [
        "add table inet abbot",
        "delete table inet abbot",
        "table inet abbot {",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        '    oifname { "abbot0", "edgefarm*" } return',
        "    ip saddr 10.77.1.0/24 ip daddr != { 10.77.1.0/24, 224.0.0.0/4 } masquerade",
        "    ip6 saddr fd00:77:1::/64 ip6 daddr != { fd00:77:1::/64, ff00::/8 } masquerade",
        "  }",
        "}",
    ]
    assert masquerade.script([], ["abbot0"]) == "add table inet abbot\ndelete table inet abbot\n"


RECORD = Record(
    container_id="one",
    pid=7,
    netns="/proc/7/ns/net",
    identity="boot:1",
    interface="eth0",
    arguments=Arguments({"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]}, {"A": "b"}),
    chain=({"type": "bridge"},),
    result={"ips": []},
    addresses=("10.77.1.2/24",),
)


def test_records_and_configuration_come_back_as_they_were_and_nobody_else_may_read_them(work: Path) -> None:
    config = NetworkConfig(ipv4=BOTH.ipv4, dns=Dns(servers=("10.96.0.10",)))
    records = Records(work, structlog.get_logger())
    records.store(RECORD)
    records.store_config(config)
    again = Records(work, structlog.get_logger())
    assert list(again.all()) == [RECORD]
    assert again.get("one") == RECORD
    assert again.config() == config
    assert {path.stat().st_mode & 0o777 for path in work.rglob("*.json")} == {0o600}
    assert (work / "containers").stat().st_mode & 0o777 == 0o700
    again.remove("one")
    again.remove("one")
    assert again.get("one") is None


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"version": 1}', '{"version": 2}', '{"version": 1, "dns": 7}', "\xff"]
)
def test_damaged_files_are_set_aside_and_do_not_stop_the_others(work: Path, damage: str) -> None:
    records = Records(work, structlog.get_logger())
    records.store(RECORD)
    (work / "containers" / "bad.json").write_bytes(damage.encode("latin-1"))
    (work / "container-network.json").write_bytes(damage.encode("latin-1"))
    with capture_logs() as logs:
        assert list(records.all()) == [RECORD]
        assert records.config() == NetworkConfig()
    assert {line["event"] for line in logs} == {"a damaged file was set aside"}
    assert (work / "containers" / "bad.json.damaged").exists()
    assert (work / "container-network.json.damaged").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"container_id": 5},
        {"chain": [5]},
        {"chain": [{}]},
        {"chain": [{"type": []}]},
        {"arguments": {"runtime": 5}},
        {"result": "up"},
        {"addresses": ["nowhere"]},
        {"addresses": [5]},
        {"what": "is this"},
    ],
)
def test_a_record_of_something_else_is_set_aside(work: Path, change: dict[str, Any]) -> None:
    records = Records(work, structlog.get_logger())
    records.store(RECORD)
    path = work / "containers" / f"{RECORD.container_id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert list(records.all()) == []
    assert path.with_name(f"{path.name}.damaged").exists()


def test_a_disk_that_refuses_is_told_in_a_sentence(work: Path) -> None:
    records = Records(work, structlog.get_logger())
    (work / "containers" / ".one.json.tmp").mkdir()
    with pytest.raises(NetworkFailed, match=r"one\.json cannot be stored: Is a directory"):
        records.store(RECORD)
