"""Speaks the CNI protocol to plugins: one at a time, and a chain of them with the result handed on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from abbot.container.commands import Finished, installed, run
from abbot.container.template import Plugin
from edgefarm.errors import NetworkFailed

Result: TypeAlias = Mapping[str, Any]
_MAX_WORDS: Final = 1000


@dataclass(frozen=True)
class Attachment:
    """The parameters of a call: which interface in which namespace of which container; no netns: it has gone."""

    container_id: str
    netns: str
    interface: str
    args: str


class Plugins:
    """The CNI plugins of a host."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def add(self, chain: Sequence[Plugin], attachment: Attachment) -> Result:
        """The result of the last plugin. NetworkFailed with the words of the plugin that failed: `delete` then, since
        those before it have done their part."""
        result: Result | None = None
        for plugin in chain:
            result = self._call("ADD", plugin, attachment, result)
        assert result is not None
        return result

    def delete(self, chain: Sequence[Plugin], attachment: Attachment, result: Result | None) -> None:
        """Undo `add`: all plugins in reverse order, also when one fails; NetworkFailed tells about all that did.

        To delete what was deleted before, or never made, is no failure.
        """
        problems = []
        for plugin in reversed(chain):
            try:
                self._call("DEL", plugin, attachment, result)
            except NetworkFailed as error:
                problems.append(str(error))
        if problems:
            raise NetworkFailed("; ".join(problems))

    def check(self, chain: Sequence[Plugin], attachment: Attachment, result: Result) -> None:
        """NetworkFailed when a plugin finds its part of the network missing or changed."""
        for plugin in chain:
            if plugin["type"] == "portmap":
                _check_ports(attachment, result)
            else:
                self._call("CHECK", plugin, attachment, result)

    def refuse_missing(self, chain: Sequence[Plugin]) -> None:
        """NetworkFailed when a plugin, or a program that it needs, is not installed: before anything is begun."""
        for plugin in chain:
            for kind in (plugin["type"], plugin.get("ipam", {}).get("type")):
                if kind is not None:
                    self._find(str(kind))
        if any(plugin["type"] == "portmap" for plugin in chain) and not installed("iptables"):
            raise NetworkFailed(
                "ports of the host need iptables, which is not installed: install it (Debian: iptables), or ask for no"
                " ports"
            )

    def _find(self, kind: str) -> Path:
        for folder in self._folders:
            if (folder / kind).is_file():
                return folder / kind
        searched = ", ".join(map(str, self._folders))
        raise NetworkFailed(
            f"there is no CNI plugin {kind!r} in {searched or 'container.pluginDirs, which is empty'}: install it"
            " (Debian: containernetworking-plugins), or set container.pluginDirs"
        )

    def _call(self, command: str, plugin: Plugin, attachment: Attachment, previous: Result | None) -> Result:
        kind = str(plugin["type"])
        program = self._find(kind)
        config = dict(plugin) if previous is None else {**plugin, "prevResult": previous}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": attachment.netns,
            "CNI_IFNAME": attachment.interface,
            "CNI_ARGS": attachment.args,
            "CNI_PATH": ":".join(map(str, self._folders)),
        }
        where = f"container {attachment.container_id}: CNI plugin {kind} ({command})"
        try:
            finished = run([str(program)], stdin=json.dumps(config).encode(), env=environment)
        except NetworkFailed as error:
            raise NetworkFailed(f"{where}: {error}") from error
        if finished.status != 0:
            raise NetworkFailed(f"{where}: {_complaint(finished)}")
        return _result(finished.stdout, where) if command == "ADD" else {}


def _check_ports(attachment: Attachment, result: Result) -> None:
    """NetworkFailed when there are no rules for the container's ports.

    The CHECK of portmap 1.1.1 looks for the rules of each family in the tables of both, and so always fails.
    """
    ipv4 = any(":" not in ip["address"] for ip in result.get("ips", ()))
    finished = run(["iptables" if ipv4 else "ip6tables", "-w", "5", "-t", "nat", "-S", "CNI-HOSTPORT-DNAT"])
    if f'id: \\"{attachment.container_id}\\"' not in finished.stdout.decode("utf-8", "replace"):
        raise NetworkFailed(f"container {attachment.container_id}: the rules for its ports of the host are missing")


def _result(stdout: bytes, where: str) -> Result:
    try:
        result = json.loads(stdout)
    except ValueError:
        raise NetworkFailed(f"{where}: what it wrote is no JSON") from None
    if not isinstance(result, dict):
        raise NetworkFailed(f"{where}: what it wrote is no CNI result")
    return result


def _complaint(finished: Finished) -> str:
    """What a plugin says about its failure: CNI's error object on stdout, else its last words."""
    try:
        error = json.loads(finished.stdout)
        words = ": ".join(str(error[name]) for name in ("msg", "details") if error.get(name))
        return f"{words[:_MAX_WORDS]} (code {error['code']})"
    except (ValueError, KeyError, AttributeError, TypeError):
        words = (finished.stderr or finished.stdout).decode("utf-8", "replace").strip()
        return f"it ended with {finished.status}" + (f": {words[-_MAX_WORDS:]}" if words else " without a word")
