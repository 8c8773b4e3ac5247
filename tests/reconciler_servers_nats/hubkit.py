"""Replicas of the hub as a kubelet would run them: real nats-servers on what the reconciler renders."""

from __future__ import annotations

import itertools
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgefarm.nats import serverconfig
from edgefarm.nats.serverconfig import CLIENT_PORT, LEAF_PORT, MONITOR_PORT, HubIdentity, HubServer, ServerConfig
from localcluster.process import LocalProcess, accepts
from localcluster.stack import Authority, find_program, write_private
from tests.natskit import LocalOperator

_MEBIBYTE = 1024 * 1024
#: Test processes run side by side on one loopback device, so that each takes addresses of its own.
_ADDRESSES = itertools.count(1)


def free_addresses(count: int) -> list[str]:
    """Loopback addresses that no other test uses."""
    number = os.getpid() % 65536
    return [f"127.{160 + next(_ADDRESSES) % 64}.{number // 256}.{max(1, number % 256 % 255)}" for _ in range(count)]


@dataclass(frozen=True)
class Mounts:
    """What is mounted into a pod: the configuration and the certificate of all replicas."""

    folder: Path

    def write(self, config: ServerConfig, authority: Authority, hosts: Sequence[str]) -> None:
        """Put a configuration and a new certificate in place."""
        self.write_config(config)
        (self.folder / "ca.crt").write_text(authority.pem)
        self.write_certificate(authority, hosts)

    def write_config(self, config: ServerConfig) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "nats.conf").write_text(config.text)

    def write_certificate(self, authority: Authority, hosts: Sequence[str]) -> None:
        certificate, key = authority.issue(f"tls-{self.folder.name}", list(hosts))
        (self.folder / "tls.crt").write_bytes(certificate.read_bytes())
        write_private(self.folder / "tls.key", key.read_bytes())


@dataclass
class Replica:
    """One pod of the hub: its address, its volume, and the process that runs in it."""

    name: str
    address: str
    mounts: Mounts
    volume: Path
    process: LocalProcess | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"tls://{self.address}:{CLIENT_PORT}"

    @property
    def leaf_url(self) -> str:
        return f"tls://{self.address}:{LEAF_PORT}"

    @property
    def pid_file(self) -> Path:
        return self.volume / "nats.pid"

    def environment(self) -> dict[str, str]:
        """What the container's environment is."""
        return {
            serverconfig.VARIABLE_NAME: self.name,
            serverconfig.VARIABLE_ADDRESS: self.address,
            serverconfig.VARIABLE_PID_FILE: str(self.pid_file),
            serverconfig.VARIABLE_CERTIFICATE: str(self.mounts.folder / "tls.crt"),
            serverconfig.VARIABLE_KEY: str(self.mounts.folder / "tls.key"),
            serverconfig.VARIABLE_AUTHORITY: str(self.mounts.folder / "ca.crt"),
            serverconfig.VARIABLE_STREAMS: str(self.volume / "streams"),
            serverconfig.VARIABLE_ACCOUNTS: str(self.volume / "accounts"),
        }

    def start(self) -> None:
        """Start it and return when it listens."""
        self.volume.mkdir(parents=True, exist_ok=True)
        process = LocalProcess.start(
            self.name,
            [find_program("nats-server"), "-c", str(self.mounts.folder / "nats.conf")],
            log=self.volume / "log",
            env=self.environment(),
        )
        self.process = process.wait_until(lambda: accepts(self.address, CLIENT_PORT), "listening")

    def healthy(self, query: str = "") -> bool:
        """What a probe of the pod finds."""
        try:
            url = f"http://{self.address}:{MONITOR_PORT}/healthz{query}"
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def begin_to_end(self) -> None:
        """Go as a pod goes: in peace, which ends the process when its clients are away."""
        assert self.process is not None
        self.process.signal(signal.SIGUSR2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None


def hub_server(operator: LocalOperator, routes: Sequence[str] = (), *, memory: int = 64 * _MEBIBYTE) -> HubServer:
    """What the reconciler renders for this operator."""
    return HubServer(
        identity=HubIdentity(operator.token(), operator.system.public, operator.system_token()),
        file_bytes=512 * _MEBIBYTE,
        memory_bytes=memory,
        routes=tuple(routes),
    )
