"""What surrounds a leaf, all real: OpenBao with the grant of an EdgeNetwork, a hub, and the pod's two processes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.grants import grant_policy
from edgefarm.nats import jwt
from edgefarm.nats.claims import ScopedKey, account_claims
from edgefarm.nats.creds import parse_creds
from edgefarm.nats.leaf_rights import template_of_leaf
from edgefarm.nats.nkeys import Prefix, encode_public
from edgefarm.vault import Role, Vault
from localcluster.process import LocalProcess, accepts, free_port
from localcluster.stack import Authority, find_program
from reconciler.adapters.nats import SystemClient
from sidecar.health import Page, fetch
from tests.natskit import Connection, Credentials, Hub, LocalAccount, eventually, jti, sign
from tests.sidecar_leaf.uplink import Uplink
from tests.vault.reviewer import TokenReviewer

NETWORK = "foo"
NAMESPACE = "network"
MEGABYTE = 1_000_000
_numbers = itertools.count(1)
_issued = itertools.count(int(time.time()) - 50_000)


def public_key(vault: Vault, name: str) -> tuple[str, int]:
    """Public nkey and version of a transit key at its newest version; it is made when there is none."""
    key = vault.ensure_key(name)
    return encode_public(Prefix.ACCOUNT, key.latest.public_key), key.latest_version


@dataclass
class World:
    """One Vault, one hub and one network, shared by the tests; every test takes an EdgeNetwork of its own."""

    vault: Vault
    reviewer: TokenReviewer
    hub: Hub
    system: SystemClient
    account: LocalAccount
    authority: Authority
    #: Cut by the tests: everything between the node and the rest of the world.
    to_hub: Uplink
    to_vault: Uplink
    server_facts: dict[str, Any]
    scopes: dict[str, ScopedKey] = field(default_factory=dict)
    #: The account's JWT as it was pushed last.
    pushed: str = ""

    async def push(self) -> None:
        """Send the account as it should be now to the hub."""
        own = [ScopedKey(key.public, role, template) for role, (key, template) in self.account.keys.items()]
        body = account_claims(
            name=NETWORK,
            account=self.account.public,
            jti=jti(),
            issued_at=next(_issued),
            issuer=self.hub.operator.signing.public,
            limits=self.account.limits,
            signing_keys=[*self.scopes.values(), *own],
        )
        self.pushed = sign(body, self.hub.operator.signing)
        await self.system.push(self.pushed)

    async def edge_network(self, **document: Any) -> str:
        """Do what the reconciler does for an EdgeNetwork; return its name. `document` overrides members."""
        edge = f"edge-{next(_numbers)}"
        await self.allow(edge)
        role, key = names.grant_role(NETWORK, NAMESPACE, names.leaf_workload(edge)), names.leaf_key(NETWORK, edge)
        text = grant_policy(self.vault.settings, key, self._path(edge), also=(names.SYSTEM_LEAF_KEY,))
        self.vault.write_policy(names.vault_policy(role), text)
        self.write_document(edge, **document)
        self.vault.write_role(
            Role(
                role,
                namespace=NAMESPACE,
                service_account=names.leaf_workload(edge),
                audience=names.DEFAULT_AUDIENCE,
                policies=(names.vault_policy(role),),
                token_ttl=600,
            )
        )
        return edge

    async def allow(self, edge: str) -> None:
        """Put the newest version of the EdgeNetwork's key into the account, and no older one."""
        public, _ = public_key(self.vault, names.leaf_key(NETWORK, edge))
        template = template_of_leaf(NETWORK, publications=("live.>",), subscriptions=("live.>",), stored=())
        self.scopes[edge] = ScopedKey(public, f"leaf.{edge}", template)
        await self.push()

    async def rotate(self, edge: str, **document: Any) -> None:
        """A new version of the key replaces the old one at once."""
        self.vault.rotate_key(names.leaf_key(NETWORK, edge))
        await self.allow(edge)
        self.write_document(edge, **document)

    async def revoke(self, edge: str) -> None:
        """What the reconciler does when the EdgeNetwork goes."""
        del self.scopes[edge]
        await self.push()
        role = names.grant_role(NETWORK, NAMESPACE, names.leaf_workload(edge))
        self.vault.delete_role(role)
        self.vault.delete_policy(names.vault_policy(role))

    def write_document(self, edge: str, **members: Any) -> None:
        """Write the access document for the newest versions of the keys."""
        public, version = public_key(self.vault, names.leaf_key(NETWORK, edge))
        system, system_version = public_key(self.vault, names.SYSTEM_LEAF_KEY)
        document = {
            "version": 1,
            "network": NETWORK,
            "policy": edge,
            "account": self.account.public,
            "signingKey": public,
            "transitKey": names.leaf_key(NETWORK, edge),
            "keyVersion": version,
            "hub": [f"tls://127.0.0.1:{self.to_hub.port}"],
            "leaf": [],
            "renewEverySeconds": 3600,
            "lifetimeSeconds": 86400,
            "system": {
                "account": self.hub.operator.system.public,
                "signingKey": system,
                "transitKey": names.SYSTEM_LEAF_KEY,
                "keyVersion": system_version,
            },
            "server": {**self.server_facts, **(members.pop("server", None) or {})},
        }
        self.vault.write_document(self._path(edge), {**document, **members})

    def cut(self) -> None:
        """The node's uplink is gone."""
        self.to_hub.cut()
        self.to_vault.cut()

    async def mend(self) -> None:
        """The uplink is back."""
        await self.to_hub.mend()
        await self.to_vault.mend()

    def user(self, lifetime: int = 3600) -> Credentials:
        """An application's credentials, valid from now on."""
        return self.account.user("all", lifetime=lifetime)

    async def at_hub(self) -> Connection:
        """A client at the hub that may do everything in the account."""
        return await Connection.open(self.hub.url, self.authority, self.user())

    def pod(self, folder: Path, edge: str, **environment: str) -> LeafPod:
        """A leaf's pod of which nothing runs yet."""
        folder.mkdir(parents=True)
        account = names.leaf_workload(edge)
        (folder / "token").write_text(self.reviewer.token(NAMESPACE, account))
        (folder / "config").mkdir()
        pod = LeafPod(folder, self.authority, self.account.public, self.pushed, self.hub.operator.system.public)
        pod.issue_certificate("first")
        settings = self.vault.settings
        pod.environment = {
            "PATH": os.environ["PATH"],
            "EDGEFARM_NETWORK": NETWORK,
            "EDGEFARM_NAMESPACE": NAMESPACE,
            "EDGEFARM_SERVICE_ACCOUNT": account,
            "EDGEFARM_POD_NAME": f"{account}-x",
            "EDGEFARM_POD_IP": "127.0.0.1",
            "EDGEFARM_NODE_NAME": pod.node,
            "EDGEFARM_VAULT_ADDR": f"https://127.0.0.1:{self.to_vault.port}",
            "EDGEFARM_VAULT_AUTH_MOUNT": settings.auth_mount,
            "EDGEFARM_VAULT_TRANSIT_MOUNT": settings.transit_mount,
            "EDGEFARM_VAULT_KV_MOUNT": settings.kv_mount,
            "EDGEFARM_CA_BUNDLE": self.authority.pem,
            "EDGEFARM_TOKEN_FILE": str(folder / "token"),
            "EDGEFARM_HEALTH_PORT": str(pod.health_port),
            "EDGEFARM_REFRESH_SECONDS": "1",
            "EDGEFARM_GRANT_RETRY_SECONDS": "1",
            "EDGEFARM_LEAF_DATA_DIR": str(pod.data),
            "EDGEFARM_LEAF_CONFIG_DIR": str(folder / "config"),
            "EDGEFARM_LEAF_TLS_DIR": str(folder / "tls"),
            "EDGEFARM_LEAF_CLIENT_PORT": str(pod.client_port),
            "EDGEFARM_LEAF_MONITOR_PORT": str(pod.monitor_port),
            **environment,
        }
        return pod

    def _path(self, edge: str) -> str:
        return names.access_document(NETWORK, NAMESPACE, names.leaf_workload(edge))


@dataclass
class LeafPod:
    """The folders of one leaf's pod, and its two processes while they run."""

    folder: Path
    authority: Authority
    account: str
    account_jwt: str
    system_account: str
    environment: dict[str, str] = field(default_factory=dict)
    node: str = "node.one"
    health_port: int = field(default_factory=free_port)
    client_port: int = field(default_factory=free_port)
    monitor_port: int = field(default_factory=free_port)
    sidecar: LocalProcess | None = None
    nats: LocalProcess | None = None

    # ── processes ───────────────────────────────────────────────────────────────────────────────────────────────────

    def start_sidecar(self) -> LeafPod:
        """Start the sidecar (again)."""
        command = [sys.executable, "-m", "sidecar", "leaf"]
        root = Path(__file__).parents[2]
        log = self.folder / "sidecar.log"
        self.sidecar = LocalProcess.start("sidecar", command, log=log, env=self.environment, cwd=root)
        return self

    def start_nats(self) -> LeafPod:
        """Start nats-server (again), as kubelet does when the sidecar is ready."""
        command = [find_program("nats-server"), "-c", str(self.configuration)]
        self.nats = LocalProcess.start("leaf", command, log=self.folder / "nats.log")
        ports = (self.client_port, self.monitor_port)
        self.nats.wait_until(lambda: all(accepts("127.0.0.1", port) for port in ports), "listening")
        return self

    async def up(self, *, first: bool = False) -> LeafPod:
        """Start both and wait until the leaf is connected to the hub.

        `first`: nothing is known of the account on this node, as before the first run; nats-server looks it up, which
        takes three seconds (see `leafkit.Leaf.remember`).
        """
        self.start_sidecar()
        await self.until_ready()
        if not first:
            remembered = self.data / "accounts"
            remembered.mkdir(exist_ok=True)
            (remembered / f"{self.account}.jwt").write_text(self.account_jwt)
        self.start_nats()
        await self.until_connected()
        return self

    def kill(self, process: LocalProcess | None) -> None:
        """kill -9."""
        assert process is not None
        process.signal(signal.SIGKILL)
        process.wait(5)

    def stop(self) -> None:
        for process in (self.sidecar, self.nats):
            if process is not None and process.returncode is None:
                process.stop(grace=10)

    # ── folders ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def data(self) -> Path:
        """The folder on the node's disk."""
        return self.folder / "data"

    @property
    def current(self) -> Path:
        """The credentials in force."""
        return self.data / "credentials" / "current"

    @property
    def configuration(self) -> Path:
        return self.folder / "config" / "leaf.conf"

    def token(self) -> str:
        """The JWT of the network's user."""
        return parse_creds((self.current / "network.creds").read_text())[0]

    def claims(self, name: str = "network") -> dict[str, Any]:
        """What the JWT of a user says."""
        return jwt.decode(parse_creds((self.current / f"{name}.creds").read_text())[0])

    def issue_certificate(self, name: str) -> None:
        """Replace the leaf's certificate, as kubelet does with a Secret's volume."""
        certificate, key = self.authority.issue(f"{self.folder.name}-{name}", ["127.0.0.1", "localhost"])
        fresh = self.folder / f"tls-{name}"
        fresh.mkdir()
        shutil.copy(certificate, fresh / "tls.crt")
        shutil.copy(key, fresh / "tls.key")
        link = self.folder / ".tls.new"
        link.symlink_to(fresh.name)
        link.rename(self.folder / "tls")

    # ── what is seen of it ──────────────────────────────────────────────────────────────────────────────────────────

    def get(self, path: str) -> Page:
        """A page of the sidecar's health port; status 0 when nothing answers."""
        try:
            return fetch("127.0.0.1", self.health_port, path, 3)
        except OSError:
            return Page(0, "")

    def metric(self, name: str) -> float:
        """The value of one figure; -1 when it is not shown."""
        for line in self.get("/metrics").body.splitlines():
            if line.startswith(f"edgefarm_sidecar_{name} "):
                return float(line.rpartition(" ")[2])
        return -1

    def log(self) -> str:
        return (self.folder / "sidecar.log").read_text()

    def monitor(self, page: str) -> dict[str, Any]:
        """What nats-server's monitoring says; empty when it does not answer."""
        try:
            found = json.loads(fetch("127.0.0.1", self.monitor_port, f"/{page}", 3).body)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def connected(self) -> bool:
        """Whether both connections to the hub are up."""
        accounts = {leaf["account"] for leaf in self.monitor("leafz").get("leafs") or []}
        return accounts == {self.account, self.system_account}

    async def until_ready(self, within: float = 20) -> None:
        """Wait until nats-server can be started."""
        try:
            await eventually(lambda: self.get("/readyz").status == 200, "ready", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.get('/readyz').body}\n{self.log()[-3000:]}") from error

    async def until_says(self, sentence: str, within: float = 20) -> None:
        """Wait until /readyz says so in these words."""
        try:
            await eventually(lambda: sentence in self.get("/readyz").body, sentence, within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.get('/readyz').body}") from error

    async def until_connected(self, within: float = 20) -> None:
        """Wait until both connections to the hub are up."""
        try:
            await eventually(self.connected, "both connections to the hub", within)
        except AssertionError as error:
            assert self.nats is not None
            raise AssertionError(f"{error}\n{self.nats.tail(20)}\n{self.log()[-3000:]}") from error

    async def until_renewed(self, since: str, within: float = 20) -> None:
        """Wait until there are other credentials than `since`."""
        await eventually(lambda: self.token() != since, "renewed", within)

    async def connect(self, credentials: Credentials) -> Connection:
        """An application's connection to the leaf."""
        return await Connection.open(f"tls://127.0.0.1:{self.client_port}", self.authority, credentials)
