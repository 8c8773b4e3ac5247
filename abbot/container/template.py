"""The template of the CNI network configuration list: its placeholders, and what they become. Pure.

A template is a conflist in JSON (CNI 1.0.0) in which strings may hold placeholders:

    {{.IPv4Subnet}} {{.IPv6Subnet}}              the host's pod subnets
    {{.IPv4DefaultRoute}} {{.IPv6DefaultRoute}}  0.0.0.0/0 and ::/0, of the families that have a subnet
    {{.Bridge}} {{.MTU}}                         as in abbot's configuration
    {{.IPAMDir}}                                 a folder of abbot's, for `dataDir` of host-local

A string that is nothing but a placeholder becomes its value (a number for MTU). What names a family without a subnet is
left out: the member of an object goes, an element of a list goes with all that is in it, and so does a list that is
left empty by that. A plugin may have the member `onlyWith`, the name of a capability: it is run for containers that ask
for that capability only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from abbot.container.requests import NetworkConfig
from abbot.container.settings import ContainerSettings
from edgefarm.errors import InvalidResource

#: What a bridge of the host, with IPv4 and IPv6, ports of the host and limits of bandwidth needs.
BUILT_IN: Final = """
{
  "cniVersion": "1.0.0",
  "name": "edgefarm",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "{{.Bridge}}",
      "mtu": "{{.MTU}}",
      "isDefaultGateway": true,
      "forceAddress": true,
      "hairpinMode": true,
      "capabilities": {"mac": true, "ips": true, "ipRanges": true},
      "ipam": {
        "type": "host-local",
        "dataDir": "{{.IPAMDir}}",
        "ranges": [[{"subnet": "{{.IPv4Subnet}}"}], [{"subnet": "{{.IPv6Subnet}}"}]]
      }
    },
    {"type": "portmap", "onlyWith": "portMappings", "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "onlyWith": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}
"""
#: Versions of the CNI specification whose results we understand.
CNI_VERSIONS: Final = ("1.0.0", "1.1.0")
CAPABILITIES: Final = ("portMappings", "bandwidth", "ipRanges", "dns", "ips", "mac", "infinibandGUID", "deviceID")

_FIELD: Final = "container.template"
_PLACEHOLDER: Final = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
_NETWORK_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PLUGIN_TYPE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_LEFT_OUT: Final = object()

Plugin: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Conflist:
    """A network configuration list without open placeholders; each plugin is its configuration as CNI has it."""

    version: str
    name: str
    disable_check: bool
    plugins: tuple[Plugin, ...]


def render(text: str, config: NetworkConfig, settings: ContainerSettings) -> Conflist:
    """The conflist that a template gives with these subnets.

    InvalidResource tells what is wrong with the template, whatever the subnets are.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise InvalidResource(_FIELD, f"is no JSON: {error}") from None
    values: dict[str, str | int | None] = {
        "IPv4Subnet": config.ipv4 or None,
        "IPv6Subnet": config.ipv6 or None,
        "IPv4DefaultRoute": "0.0.0.0/0" if config.ipv4 else None,
        "IPv6DefaultRoute": "::/0" if config.ipv6 else None,
        "Bridge": settings.bridge,
        "MTU": settings.mtu,
        "IPAMDir": str(ipam_folder(settings.data_dir)),
    }
    return _conflist(_filled(tree, values))


def ipam_folder(data_dir: Path) -> Path:
    """Where host-local keeps which address is whose: on disk, so that addresses survive a reboot."""
    return data_dir / "ipam"


def _filled(node: Any, values: Mapping[str, str | int | None]) -> Any:
    """The node with values in place of placeholders; _LEFT_OUT when a placeholder in it has none."""
    if isinstance(node, str):
        return _filled_text(node, values)
    if isinstance(node, Mapping):
        members = {name: _filled(member, values) for name, member in node.items()}
        return {name: member for name, member in members.items() if member is not _LEFT_OUT}
    if isinstance(node, list):
        elements = [_filled_element(element, values) for element in node]
        kept = [element for element in elements if element is not _LEFT_OUT]
        return kept if kept or not elements else _LEFT_OUT
    return node


def _filled_element(element: Any, values: Mapping[str, str | int | None]) -> Any:
    filled = _filled(element, values)
    if isinstance(element, Mapping) and len(filled) < len(element):
        return _LEFT_OUT
    return filled


def _filled_text(text: str, values: Mapping[str, str | int | None]) -> Any:
    names = _PLACEHOLDER.findall(text)
    for name in names:
        if name not in values:
            raise InvalidResource(_FIELD, f"has the unknown placeholder {name!r}; there are {', '.join(values)}")
    if any(values[name] is None for name in names):
        return _LEFT_OUT
    if len(names) == 1 and _PLACEHOLDER.fullmatch(text):
        return values[names[0]]
    return _PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)


def _conflist(tree: Any) -> Conflist:
    if not isinstance(tree, dict):
        raise InvalidResource(_FIELD, "must be an object with `cniVersion`, `name` and `plugins`")
    version, name, plugins = tree.get("cniVersion"), tree.get("name"), tree.get("plugins")
    if version not in CNI_VERSIONS:
        raise InvalidResource(f"{_FIELD}.cniVersion", f"must be one of {', '.join(CNI_VERSIONS)}")
    if not isinstance(name, str) or not _NETWORK_NAME.fullmatch(name):
        raise InvalidResource(f"{_FIELD}.name", "must be of letters, digits, `_`, `.` and `-`")
    if not isinstance(plugins, list) or not plugins:
        raise InvalidResource(f"{_FIELD}.plugins", "must be a list of at least one plugin")
    for position, plugin in enumerate(plugins):
        _check_plugin(f"{_FIELD}.plugins[{position}]", plugin)
    return Conflist(version, name, tree.get("disableCheck") is True, tuple(plugins))


def _check_plugin(where: str, plugin: Any) -> None:
    if not isinstance(plugin, dict):
        raise InvalidResource(where, "must be an object")
    kind = plugin.get("type")
    if not isinstance(kind, str) or not _PLUGIN_TYPE.fullmatch(kind):
        raise InvalidResource(f"{where}.type", "must be the file name of a CNI plugin, e.g. bridge")
    capabilities = plugin.get("capabilities", {})
    if not isinstance(capabilities, dict) or not all(isinstance(wanted, bool) for wanted in capabilities.values()):
        raise InvalidResource(f"{where}.capabilities", "must be an object of true and false")
    if plugin.get("onlyWith", CAPABILITIES[0]) not in CAPABILITIES:
        raise InvalidResource(f"{where}.onlyWith", f"must be one of {', '.join(CAPABILITIES)}")
    if not isinstance(plugin.get("ipam", {}), dict):
        raise InvalidResource(f"{where}.ipam", "must be an object")
