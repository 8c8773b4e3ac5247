"""Leaf nodes for tests: real nats-servers with the configuration of `edgefarm.nats.leafconfig`, at a hub of natskit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import ssl
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgefarm.nats import nkeys
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

    def remember(self, account_jwt: str) -> None:
        """Leave the account on the disk, as an earlier run does: the first look-up comes before the hub can answer.

        It costs a leaf that has never run three seconds: the server's time limit, and its pause before it tries again.
        """
        folder = Path(self.server.accounts_folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.server.uplink.account}.jwt").write_text(account_jwt)

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


class RogueLeaf:
    """Somebody with a leaf's credentials who speaks the leaf protocol by hand and keeps to no rule of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = asyncio.create_task(self._read())
        self.received: list[str] = []
        self.errors: list[str] = []

    @classmethod
    async def connect(cls, hub: Hub, credentials: Credentials, domain: str = "rogue") -> RogueLeaf:
        """Connect to the hub's listener for leafs. That the hub refuses is seen by `until_closed`."""
        host, _, port = hub.leaf_url.removeprefix("tls://").rpartition(":")
        plain, info = await _read_info(host, int(port))
        tls = ssl.create_default_context(cadata=hub.authority.pem)
        reader, writer = await asyncio.open_connection(sock=plain, ssl=tls, server_hostname=host)
        token, seed = credentials
        signature = base64.urlsafe_b64encode(nkeys.sign(seed, info["nonce"].encode())).rstrip(b"=").decode()
        connect = {"jwt": token, "sig": signature, "name": domain, "domain": domain, "server_id": domain}
        rogue = cls(reader, writer)
        rogue.send(f"CONNECT {json.dumps({**connect, 'headers': True, 'tls_required': True})}")
        await rogue.settle()
        return rogue

    def send(self, line: str) -> None:
        """Send one line of the protocol."""
        self._writer.write(f"{line}\r\n".encode())

    async def subscribe(self, subject: str) -> None:
        """Ask for a subject of the account."""
        self.send(f"LS+ {subject}")
        await self.settle()

    async def publish(self, subject: str, payload: str = "", reply: str = "") -> None:
        """Send a message into the account."""
        self.send(f"LMSG {subject} {f'{reply} ' if reply else ''}{len(payload)}\r\n{payload}")
        await self.settle()

    async def settle(self) -> None:
        """Return when the hub has worked off what was sent, or has closed the connection."""
        pongs = self.received.count("PONG")
        self.send("PING")
        await eventually(lambda: self.closed or self.received.count("PONG") > pongs, "an answer of the hub")

    def subjects(self) -> list[str]:
        """The subjects of the messages that came."""
        return [line.split(" ")[1] for line in self.received if line.startswith(("LMSG ", "HMSG "))]

    def requests(self) -> list[str]:
        """Those that are not traffic between streams, which other tests may cause."""
        return [subject for subject in self.subjects() if not subject.startswith(("$JS.S.", "$JS.M.", "$JS.FC."))]

    @property
    def closed(self) -> bool:
        """Whether the hub has ended the connection."""
        return self._lines.done()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._lines
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while read := await self._reader.readline():
                line = read.decode(errors="replace").rstrip()
                self.received.append(line)
                if line == "PING":
                    self.send("PONG")
                if line.startswith("-ERR"):
                    self.errors.append(line)


async def _read_info(host: str, port: int) -> tuple[socket.socket, dict[str, Any]]:
    """A connection on which the server has introduced itself and now waits for TLS."""
    loop, line = asyncio.get_running_loop(), b""
    plain = socket.create_connection((host, port), timeout=5)
    plain.setblocking(False)
    while not line.endswith(b"\n"):
        line += await loop.sock_recv(plain, 1)
    return plain, json.loads(line.removeprefix(b"INFO "))
