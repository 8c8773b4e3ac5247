"""A container runtime for tests: calls the CNI plugin `abbot-cni` as `cnitool` does, in a host's namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localcluster.netns import Namespace


@dataclass(frozen=True)
class Outcome:
    """What the plugin left: its exit status, and what it wrote, if that was JSON."""

    status: int
    stdout: str

    @property
    def answer(self) -> Any:
        return json.loads(self.stdout)


@dataclass
class Runtime:
    """Calls the plugin for containers of one network; `socket` is the daemon's, `host` None: in this namespace."""

    host: Namespace | None
    socket: str
    version: str = "1.0.0"
    results: dict[str, Any] = field(default_factory=dict)

    def call(self, command: str, config: Mapping[str, Any] | str | None = None, **environment: str) -> Outcome:
        """Call the plugin with parts of a configuration, or with this text on stdin."""
        base = {"cniVersion": self.version, "name": "edgefarm", "type": "abbot-cni", "socket": self.socket}
        text = config if isinstance(config, str) else json.dumps({**base, **(config or {})})
        variables = {f"CNI_{name.upper()}": value for name, value in environment.items()}
        plugin = [sys.executable, "-m", "abbot", "cni"]
        done = subprocess.run(
            plugin if self.host is None else ["ip", "netns", "exec", self.host.name, *plugin],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": "/usr/lib/cni", **variables},
        )
        assert done.stderr == ""
        return Outcome(done.returncode, done.stdout)

    def add(self, container: str, pod: Namespace, ifname: str = "eth0", args: str = "", **config: Any) -> Any:
        """The result of ADD, which is kept for the calls that follow."""
        outcome = self.call("ADD", config, containerid=container, netns=str(pod.path), ifname=ifname, args=args)
        assert outcome.status == 0, outcome.stdout
        self.results[container] = outcome.answer
        return outcome.answer

    def check(self, container: str, pod: Namespace, ifname: str = "eth0") -> Outcome:
        previous = {"prevResult": self.results[container]}
        return self.call("CHECK", previous, containerid=container, netns=str(pod.path), ifname=ifname)

    def delete(self, container: str, netns: str, ifname: str = "eth0") -> None:
        previous = {"prevResult": self.results[container]} if container in self.results else {}
        outcome = self.call("DEL", previous, containerid=container, netns=netns, ifname=ifname)
        assert (outcome.status, outcome.stdout) == (0, "")
