"""A pod's network namespace on an edge host, attached by our CNI plugin as a container runtime does it."""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from dataclasses import dataclass
from typing import Final

from localcluster.client import Json
from localcluster.demo.mesh.hosts import Host
from localcluster.demo.report import CheckFailed
from localcluster.netns import Namespace

_VERSION: Final = "1.0.0"
_INTERFACE: Final = "eth0"


@dataclass(frozen=True)
class Pod:
    """A namespace as a runtime makes it for a pod."""

    host: Host
    space: Namespace

    def attach(self) -> str:
        """ADD; the address that the pod got. A second ADD without DEL is an error, as for any CNI plugin."""
        result: Json = json.loads(self._cni("ADD"))
        if "code" in result:
            raise CheckFailed(f"CNI ADD failed: {result['msg']}: {result.get('details', '')}")
        addresses = [ipaddress.ip_interface(entry["address"]) for entry in result["ips"]]
        return str(next(address.ip for address in addresses if address.version == 4))

    def detach(self) -> None:
        """DEL; no error when there is nothing left."""
        self._cni("DEL")

    def _cni(self, command: str) -> str:
        """Run the plugin in the host's namespace, with what a runtime hands in (CNI specification 1.0.0)."""
        config = {
            "cniVersion": _VERSION,
            "name": "edgefarm",
            "type": "abbot-cni",
            "socket": str(self.host.socket),
        }
        variables = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": self.space.name,
            "CNI_NETNS": str(self.space.path),
            "CNI_IFNAME": _INTERFACE,
            "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
        }
        settings = [f"{name}={value}" for name, value in variables.items()]
        program = [sys.executable, "-m", "abbot", "-c", str(self.host.config), "cni"]
        path = f"PATH={os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        return self.host.space.run(["env", path, *settings, *program], stdin=json.dumps(config), check=False)
