"""The peers: plain nats-servers over TLS, with no operator and nothing of ours in their configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import Authority, find_program
from tests.bench.edge.wire import Login, Target

#: The only user of the linked servers, in a plain account.
_LOGIN = Login(user="bench", password="bench")
_ACCOUNTS = """\
accounts {
  BENCH { jetstream: enabled, users: [{user: bench, password: bench}] }
  SYS { users: [{user: admin, password: admin}] }
}
system_account: SYS
"""


@dataclass(frozen=True)
class PlainServer:
    """One running server."""

    process: LocalProcess
    target: Target

    @classmethod
    def start(cls, folder: Path, authority: Authority, name: str, text: str = "", login: Login | None = None) -> Self:
        """Start a server that has TLS and what `text` says, and nothing else."""
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        certificate, key = authority.issue(name, ["127.0.0.1"])
        config = folder / f"{name}.conf"
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: 10 }}'
        config.write_text(f"server_name: {name}\nlisten: 127.0.0.1:{port}\n{tls}\n{text}")
        command = [find_program("nats-server"), "-c", str(config)]
        process = LocalProcess.start(name, command, log=folder / f"{name}.log")
        process.wait_until(lambda: accepts("127.0.0.1", port), "listening")
        return cls(process, Target(port, authority.pem, login or Login()))

    @classmethod
    def start_alike(cls, folder: Path, authority: Authority) -> Self:
        """A server whose client has permissions, in an account with JetStream in a domain of its own."""
        permissions = 'permissions: {publish: ["live.>", "readings.>"], subscribe: ["live.>", "_INBOX.>"]}'
        user = f"{{user: bench, password: bench, {permissions}}}"
        accounts = f"accounts {{ BENCH {{ jetstream: enabled, users: [{user}] }} }}\n"
        jetstream = f'jetstream {{ store_dir: "{folder / "data"}", domain: alike }}\n'
        return cls.start(folder, authority, "alike", jetstream + accounts, _LOGIN)


@dataclass
class PlainPair:
    """A hub and a leaf of it, linked over TLS, with JetStream domains `main` and `leaf`."""

    folder: Path
    authority: Authority
    hub: PlainServer
    hub_leaf_port: int
    leaf: PlainServer | None = None

    @classmethod
    def start(cls, folder: Path, authority: Authority) -> Self:
        """Start the hub; `start_leaf` follows."""
        port = free_port()
        certificate, key = authority.issue("plain-leafs", ["127.0.0.1"])
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: 10 }}'
        text = f"leafnodes {{ listen: 127.0.0.1:{port}, no_advertise: true, {tls} }}\n"
        text += f'jetstream {{ store_dir: "{folder / "hub"}", domain: main }}\n{_ACCOUNTS}'
        return cls(folder, authority, PlainServer.start(folder, authority, "plain-hub", text, _LOGIN), port)

    def start_leaf(self, port: int | None = None) -> None:
        """Start the leaf, or start it again with another way to the hub."""
        if self.leaf is not None:
            self.leaf.process.stop()
        url = f"tls://bench:bench@127.0.0.1:{port or self.hub_leaf_port}"
        remote = (
            f'{{ urls: ["{url}"], account: BENCH, tls {{ ca_file: "{self.authority.certificate}", timeout: 10 }} }}'
        )
        text = (
            f'leafnodes {{ remotes: [{remote}] }}\njetstream {{ store_dir: "{self.folder / "leaf"}", domain: leaf }}\n'
        )
        self.leaf = PlainServer.start(self.folder, self.authority, "plain-leaf", text + _ACCOUNTS, _LOGIN)

    @property
    def at_leaf(self) -> Target:
        """The leaf's listener."""
        assert self.leaf is not None
        return self.leaf.target

    def stop(self) -> None:
        """Stop both."""
        for server in (self.leaf, self.hub):
            if server is not None:
                server.process.stop()
