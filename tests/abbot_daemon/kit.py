"""Real daemons in network namespaces, and how tests talk to them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from abbot.client import DaemonUnreachable, call
from edgefarm.abbotproto import abbot_pb2 as pb
from edgefarm.abbotproto.envelope import RequestBody, ResponseBody, pack_request, unpack_response
from localcluster.netns import Namespace
from localcluster.process import LocalProcess

TIMEOUT: Final = 20.0
#: Where its /readyz and /metrics are, in its own namespace.
HEALTH_PORT: Final = 3599


class Abbot:
    """One host's daemon, its data and its sockets; it can be ended and started again."""

    def __init__(self, space: Namespace, folder: Path, config: Mapping[str, Any] | None = None) -> None:
        folder.mkdir()
        self.space = space
        self.folder = folder
        self.socket = folder / "s"
        self.log = folder / "abbot.log"
        self.config = folder / "config.yaml"
        self.process: LocalProcess | None = None
        self.configure(config or {})

    def configure(self, config: Mapping[str, Any]) -> None:
        """Write the configuration; for the next start."""
        given = {
            "dataDir": str(self.folder / "data"),
            "socket": str(self.socket),
            "health": {"port": HEALTH_PORT},
            "container": {"pluginDirs": [str(self.folder / "no-plugins")]},
        }
        self.config.write_text(yaml.safe_dump({**given, **config}))
        self.config.chmod(0o600)

    def launch(self) -> LocalProcess:
        """Start the daemon, and do not wait for it."""
        command = [sys.executable, "-m", "abbot", "-c", str(self.config), "daemon"]
        self.process = self.space.start("abbot", command, log=self.log)
        return self.process

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.launch().wait_until(self.answers, "answering", TIMEOUT)

    def answers(self) -> bool:
        """Whether the daemon serves requests."""
        try:
            self.ask(pb.HostNetworkConfigQueryRequest(providers=["nobody"]))
        except DaemonUnreachable:
            return False
        return True

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.signal(15)
        return self.process.wait(TIMEOUT)

    def kill(self) -> None:
        """As a crash would: nothing is cleaned up."""
        assert self.process is not None
        self.process.signal(9)
        self.process.wait(TIMEOUT)

    def ask(self, body: RequestBody) -> ResponseBody:
        """The answer to a request; RequestFailed with the daemon's words."""
        return unpack_response(call(str(self.socket), pack_request(body), timeout=TIMEOUT))

    def ensure(self, provider: str, *interfaces: pb.HostNetworkInterface) -> list[pb.HostNetworkInterface]:
        """Make these the provider's interfaces; what they are then."""
        answer = self.ask(pb.HostNetworkConfigEnsureRequest(provider=provider, expected=interfaces))
        assert isinstance(answer, pb.HostNetworkConfigResponse)
        return list(answer.actual)

    def query(self, *providers: str) -> list[pb.HostNetworkInterface]:
        answer = self.ask(pb.HostNetworkConfigQueryRequest(providers=providers))
        assert isinstance(answer, pb.HostNetworkConfigResponse)
        return list(answer.actual)

    def command(self, *, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
        """Run `abbot process`."""
        return subprocess.run(
            [sys.executable, "-m", "abbot", "-c", str(self.config), "process"],
            input=base64.b64encode(stdin),
            env=os.environ | environ,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )

    def page(self, path: str) -> str:
        """What the health port says, whatever the status."""
        return self.space.run(["curl", "-s", f"http://127.0.0.1:{HEALTH_PORT}{path}"])

    def links(self) -> set[str]:
        """Names of the namespace's interfaces."""
        return {line.split(":")[1].split("@")[0].strip() for line in self.space.ip("-o", "link").splitlines()}


def wait_until(holds: Callable[[], bool], what: str, seconds: float = TIMEOUT) -> None:
    """Return when it holds; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not {what} after {seconds:g} s"
        time.sleep(0.05)


def bridge(name: str, *addresses: str, delete_on_exit: bool = False) -> pb.HostNetworkInterface:
    """A bridge to be ensured."""
    metadata = pb.NetworkInterface(name=name, addresses=addresses, delete_on_exit=delete_on_exit)
    return pb.HostNetworkInterface(metadata=metadata, bridge=pb.DriverBridge())
