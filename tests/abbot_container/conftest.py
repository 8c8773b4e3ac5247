"""A host in a namespace of its own with abbot's container network, and pods in further ones."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from localcluster.netns import Namespace, Namespaces
from tests.abbot_container.driver import REQUESTS
from tests.netkit import spaces as spaces

PLUGINS = Path("/usr/lib/cni")
IPV4 = "10.77.1.0/24"
IPV6 = "fd00:77:1::/64"


class Failed(Exception):
    """A call of the container network failed; `kind` is the class of its error."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@dataclass(frozen=True)
class Host:
    """A host; every call is a process of its own, so what is remembered is what is on disk."""

    spaces: Namespaces
    space: Namespace
    data_dir: Path
    plugin_dirs: tuple[Path, ...] = (PLUGINS,)
    bridge: str = "abbot0"
    mtu: int = 0
    template: Path | None = None
    masquerade: bool = True

    def with_(self, **changes: Any) -> Host:
        return dataclasses.replace(self, **changes)

    @property
    def settings(self) -> str:
        return json.dumps(
            {
                "data_dir": str(self.data_dir),
                "plugin_dirs": [str(folder) for folder in self.plugin_dirs],
                "bridge": self.bridge,
                "mtu": self.mtu,
                "template": str(self.template) if self.template else "",
                "masquerade": self.masquerade,
            }
        )

    def command(self, method: str) -> list[str]:
        return [sys.executable, "-m", "tests.abbot_container.driver", self.settings, method]

    def call(self, method: str, **request: Any) -> Any:
        """The answer as protobuf's JSON; raises Failed."""
        assert method in REQUESTS
        outcome = json.loads(self.space.run(self.command(method), stdin=json.dumps(request)))
        if "error" in outcome:
            raise Failed(outcome["kind"], outcome["error"])
        return outcome["answer"]

    def configure(self, *, ipv4: str = IPV4, ipv6: str = "", **more: Any) -> Any:
        return self.call("ensure_config", ipv4_subnet=ipv4, ipv6_subnet=ipv6, **more)

    def pod(self, short: str) -> Namespace:
        """A new namespace for a container; its loopback is off, as runtimes leave it."""
        space = self.spaces.add(short)
        space.ip("link", "set", "lo", "down")
        return space

    def ensure(self, container: str, pod: Namespace, **more: Any) -> Any:
        return self.call("ensure", container_id=container, netns=str(pod.path), **more)

    def addresses(self, container: str, pod: Namespace, **more: Any) -> list[str]:
        """The container's addresses, without prefix length, after `ensure`."""
        return addresses(self.ensure(container, pod, **more))

    def delete(self, container: str, **more: Any) -> None:
        assert self.call("delete", container_id=container, **more) is None

    def listen(self, space: Namespace, port: int) -> None:
        """Start a TCP listener that tells callers who they are."""
        log = self.data_dir.parent / f"echo-{space.name}-{port}.log"
        process = space.start(
            "echo", [sys.executable, "-m", "tests.abbot_container.echo", "listen", str(port)], log=log
        )
        process.wait_until(lambda: "listening" in process.tail(), "listening")

    def state(self) -> Mapping[str, Any]:
        """Everything about the host's network that a container may change, and the addresses that are reserved."""
        reserved = self.data_dir / "ipam"
        return {
            "links": [
                (link["ifname"], link.get("master"), [a["local"] for a in link["addr_info"] if a["scope"] != "link"])
                for link in json.loads(self.space.run(["ip", "-j", "address"]))
            ],
            "routes": [
                (route["dst"], route.get("dev"))
                for family in ("-4", "-6")
                for route in json.loads(self.space.run(["ip", "-j", family, "route"]))
            ],
            "rules": sorted(
                re.sub(r"counter packets \d+ bytes \d+", "counter", line.strip())
                for line in self.space.run(["nft", "list", "ruleset"]).splitlines()
            ),
            "reserved": sorted(path.name for path in reserved.rglob("*") if path.is_file() and path.name[0].isdigit()),
            "records": sorted(path.name for path in (self.data_dir / "containers").glob("*")),
        }


def addresses(answer: Mapping[str, Any]) -> list[str]:
    (interface,) = answer["interfaces"]
    return [address.partition("/")[0] for address in interface["addresses"]]


def ask(space: Namespace, address: str, port: int) -> str:
    """What address a listener sees `space` come from; empty when it cannot be reached."""
    return space.run([sys.executable, "-m", "tests.abbot_container.echo", "ask", address, str(port)])


@pytest.fixture
def host(spaces: Namespaces, work: Path) -> Host:
    """A host without subnets for containers yet."""
    if not (PLUGINS / "bridge").exists() or shutil.which("iptables", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip("install containernetworking-plugins and iptables to test container networks")
    return Host(spaces, spaces.add("host"), work / "data")
