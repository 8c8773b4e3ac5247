"""One host of the mesh: its files, and abbot and the node agent as processes in its namespace."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from edgefarm import names
from localcluster.netns import Namespace
from localcluster.process import LocalProcess
from localcluster.stack import write_private

#: Of the mesh's interface on every host.
INTERFACE: Final = "edgefarm0"
LISTEN_PORT: Final = 51820
_BRIDGE: Final = "abbot0"
_ROOT: Final = Path(__file__).parents[3]


@dataclass(frozen=True)
class Tokens:
    """What proves an agent: to Vault its service account, to the reconciler its node."""

    vault: str = field(repr=False)
    agent: str = field(repr=False)


@dataclass
class Host:
    """An edge host or a gateway. Its data outlive a reboot, its processes and interfaces do not."""

    space: Namespace
    node: str
    role: str
    folder: Path
    vault_address: str
    ca_pem: str
    abbot: LocalProcess | None = None
    agent: LocalProcess | None = None

    @property
    def device(self) -> str:
        """Name of its EdgeDevice."""
        return names.edge_device(self.role, self.node)

    @property
    def config(self) -> Path:
        """abbot's configuration."""
        return self.folder / "abbot.yaml"

    @property
    def socket(self) -> Path:
        """Where abbot's daemon listens; it is gone after a reboot. Not below `folder`, whose path may be too long."""
        return self.space.state / "run" / "abbot.sock"

    def prepare(self, tokens: Tokens) -> None:
        """Write what an administrator and the kubelet put on a host."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_private(self.folder / "vault-token", tokens.vault.encode())
        write_private(self.folder / "agent-token", tokens.agent.encode())
        self.config.write_text(yaml.safe_dump(self._abbot_settings()))
        (self.folder / "agent.yaml").write_text(yaml.safe_dump(self._agent_settings()))

    def start(self) -> None:
        """Start abbot and, once it listens, the agent."""
        self.start_abbot()
        self.start_agent()

    def start_abbot(self) -> None:
        """Start the daemon and wait until it listens."""
        command = [sys.executable, "-m", "abbot", "-c", str(self.config), "daemon"]
        self.abbot = self.space.start("abbot", command, log=self.folder / "abbot.log", env=_environment())
        listening = Path(f"{self.socket}.raw")
        self.abbot.wait_until(listening.exists, "listening")

    def use_default_patience(self) -> None:
        """Give abbot its own defaults for how long a silent path is kept, instead of the demo's; starts it again."""
        settings = self._abbot_settings()
        del settings["paths"]
        self.config.write_text(yaml.safe_dump(settings))
        if self.abbot is not None:
            self.abbot.stop()
        self.start_abbot()

    def start_agent(self) -> None:
        """Start the node agent."""
        environment = _environment() | {
            "EDGEFARM_NAMESPACE": names.CONTROLLER_NAMESPACE,
            "EDGEFARM_SERVICE_ACCOUNT": names.AGENT_SERVICE_ACCOUNTS[self.role],
            "EDGEFARM_NODE_NAME": self.node,
            "EDGEFARM_VAULT_ADDR": self.vault_address,
            "EDGEFARM_CA_BUNDLE": self.ca_pem,
            "EDGEFARM_TOKEN_FILE": str(self.folder / "vault-token"),
            "EDGEFARM_AGENT_TOKEN_FILE": str(self.folder / "agent-token"),
            "EDGEFARM_AGENT_CONFIG": str(self.folder / "agent.yaml"),
            "EDGEFARM_HEALTH_HOST": "127.0.0.1",
        }
        command = [sys.executable, "-m", "agent"]
        self.agent = self.space.start("agent", command, log=self.folder / "agent.log", env=environment)

    def stop(self) -> None:
        """End both, as a clean shutdown does."""
        for process in (self.agent, self.abbot):
            if process is not None:
                process.stop()
        self.agent = self.abbot = None

    def lose_power(self) -> None:
        """End everything at once; interfaces and what is only in memory are gone, as before a boot."""
        self.space.end_processes()
        self.agent = self.abbot = None
        links = json.loads(self.space.ip("-json", "link", "show"))
        for link in links:
            if link["ifname"] in (INTERFACE, _BRIDGE):
                self.space.ip("link", "delete", link["ifname"])
        shutil.rmtree(self.socket.parent, ignore_errors=True)

    def transferred(self) -> int:
        """Bytes that its tunnels have sent and received."""
        lines = self.space.run(["wg", "show", INTERFACE, "transfer"]).splitlines()
        return sum(int(number) for line in lines for number in line.split()[1:])

    def peers(self) -> set[str]:
        """Public keys of its peers."""
        return set(self.space.run(["wg", "show", INTERFACE, "peers"]).split())

    def _abbot_settings(self) -> dict[str, Any]:
        return {
            "dataDir": str(self.folder / "abbot"),
            "socket": str(self.socket),
            "repairEvery": "5s",
            "forwarding": True,
            "paths": {"probeEvery": "1s", "deadAfter": "5s"},
            "container": {"pluginDirs": ["/opt/cni/bin", "/usr/lib/cni"], "bridge": _BRIDGE},
        }

    def _agent_settings(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "abbot", "-c", str(self.config), "process"]
        return {
            "network": {"enabled": True, "abbotExec": command},
            "containers": self.role == names.ROLE_EDGE,
        }


def _environment() -> dict[str, str]:
    """The bare environment of a service, from which the project can be imported."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(_ROOT)}
