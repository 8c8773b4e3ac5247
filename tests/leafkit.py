"""Leaf nodes for tests: real nats-servers with the configuration of `edgefarm.nats.leafconfig`, at a hub of natskit."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgefarm.nats.leafconfig import LeafServer, ListenerTls, Storage, Uplink, leaf_config
from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import find_program
from tests.natskit import Credentials, Hub, LocalAccount, eventually, write_creds

MEGABYTE = 1_000_000


@dataclass
class Leaf:
    """One leaf's configuration, folders and (while it runs) process."""

    folder: Path
    server: LeafServer
    process: LocalProcess | None = None

    @classmethod
    def create(
        cls, folder: Path, hub: Hub, account: LocalAccount, credentials: Credentials, *, domain: str = "leaf"
    ) -> Leaf:
        """A leaf of the account that is not running yet, with users of the account and of SYS."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = hub.authority.issue(f"leaf-{domain}", ["127.0.0.1", "localhost"])
        server = LeafServer(
            domain=domain,
            host="127.0.0.1",
            client_port=free_port(),
            monitor_port=free_port(),
            pid_file=str(folder / "nats.pid"),
            operator_jwt=hub.operator.token(),
            system_account=hub.operator.system.public,
            system_account_jwt=hub.operator.system_token(),
            accounts_folder=str(folder / "accounts"),
            storage=Storage(str(folder / "jetstream"), 10 * MEGABYTE, 10 * MEGABYTE),
            uplink=Uplink(
                urls=(hub.leaf_url,),
                account=account.public,
                credentials=str(write_creds(folder / "network.creds", credentials)),
                system_credentials=str(write_creds(folder / "system.creds", hub.operator.leaf_credentials())),
                ca_file=str(hub.authority.certificate),
            ),
            tls=ListenerTls(str(certificate), str(key)),
        )
        return cls(folder, server)

    @property
    def url(self) -> str:
        return f"tls://127.0.0.1:{self.server.client_port}"

    @property
    def running(self) -> LocalProcess:
        assert self.process is not None
        return self.process

    def change(self, **members: Any) -> None:
        """Change the configuration; the running server is told nothing."""
        self.server = replace(self.server, **members)

    def write(self) -> Path:
        """Write the configuration."""
        path = self.folder / "leaf.conf"
        path.write_text(leaf_config(self.server))
        return path

    def start(self) -> Leaf:
        """Start the server (again)."""
        command = [find_program("nats-server"), "-c", str(self.write())]
        self.process = LocalProcess.start(self.server.domain, command, log=self.folder / "leaf.log")
        ports = (self.server.client_port, self.server.monitor_port)
        self.process.wait_until(lambda: all(accepts("127.0.0.1", port) for port in ports), "listening")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    def monitor(self, page: str) -> dict[str, Any]:
        """What the server's monitoring says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.monitor_port}/{page}", timeout=5) as answer:
            found = json.loads(answer.read())
        assert isinstance(found, dict)
        return found

    def connected(self) -> set[str]:
        """The accounts whose connection to the hub is up."""
        return {str(leaf["account"]) for leaf in self.monitor("leafz").get("leafs") or []}

    async def until_connected(self, within: float = 15) -> None:
        """Wait until both connections are up."""
        accounts = {self.server.uplink.account, self.server.system_account}
        try:
            await eventually(lambda: self.connected() == accounts, "both connections to the hub", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.running.tail(30)}") from error
