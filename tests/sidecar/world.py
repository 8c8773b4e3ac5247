"""What surrounds a sidecar, all real: OpenBao with a grant, nats-server with the account, and the sidecar's process."""

from __future__ import annotations

import itertools
import json
import os
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgefarm import names
from edgefarm.grants import grant_policy
from edgefarm.nats import jwt
from edgefarm.nats.claims import ScopedKey, account_claims
from edgefarm.nats.creds import parse_creds
from edgefarm.nats.nkeys import Prefix, encode_public
from edgefarm.nats.templates import PermissionTemplate, template_of_policy
from edgefarm.vault import Role, Vault
from localcluster.process import LocalProcess, free_port
from localcluster.stack import Authority
from reconciler.adapters.nats import SystemClient
from sidecar.health import Page, fetch
from tests.natskit import Connection, Hub, LocalAccount, eventually, jti, sign
from tests.vault.reviewer import TokenReviewer

NETWORK = "foo"
NAMESPACE = "plant"
#: What Dapr's JetStream client needs beside the subjects themselves.
JETSTREAM = ("$JS.API.>", "$JS.ACK.>")

_numbers = itertools.count(1)
_issued = itertools.count(int(time.time()) - 50_000)


@dataclass
class World:
    """One Vault, one hub and one network, shared by the tests; every test takes a service account of its own."""

    vault: Vault
    reviewer: TokenReviewer
    hub: Hub
    system: SystemClient
    account: LocalAccount
    authority: Authority
    scopes: dict[str, ScopedKey] = field(default_factory=dict)
    #: Other servers that get the account, too.
    also: list[SystemClient] = field(default_factory=list)

    def service_account(self) -> str:
        """A name that no other test uses."""
        return f"sensor-{next(_numbers)}"

    async def push(self) -> None:
        """Send the account as it should be now to the server."""
        body = account_claims(
            name=NETWORK,
            account=self.account.public,
            jti=jti(),
            issued_at=next(_issued),
            issuer=self.hub.operator.signing.public,
            limits=self.account.limits,
            signing_keys=[*self.scopes.values(), *self._own_keys()],
        )
        for system in (self.system, *self.also):
            await system.push(sign(body, self.hub.operator.signing))

    async def grant(
        self, service_account: str, allowpub: tuple[str, ...], allowsub: tuple[str, ...] = (), **document: Any
    ) -> None:
        """Do what the reconciler does for a Policy; `document` overrides members of the access document."""
        await self.allow(service_account, template_of_policy(allowpub, allowsub, (), ()))
        key = names.policy_key(NETWORK, NAMESPACE, service_account)
        role = names.grant_role(NETWORK, NAMESPACE, service_account)
        path = names.access_document(NETWORK, NAMESPACE, service_account)
        self.vault.write_policy(names.vault_policy(role), grant_policy(self.vault.settings, key, path))
        self.write_document(service_account, **document)
        self.vault.write_role(
            Role(
                role,
                namespace=NAMESPACE,
                service_account=service_account,
                audience=names.DEFAULT_AUDIENCE,
                policies=(names.vault_policy(role),),
                token_ttl=600,
            )
        )

    async def allow(self, service_account: str, template: PermissionTemplate) -> None:
        """Put the newest version of the scoped key into the account, and no older one."""
        key = self.vault.ensure_key(names.policy_key(NETWORK, NAMESPACE, service_account))
        public = encode_public(Prefix.ACCOUNT, key.latest.public_key)
        self.scopes[service_account] = ScopedKey(public, service_account, template)
        await self.push()

    def write_document(self, service_account: str, **members: Any) -> None:
        """Write the access document for the newest version of the key."""
        name = names.policy_key(NETWORK, NAMESPACE, service_account)
        key = self.vault.ensure_key(name)
        document = {
            "version": 1,
            "network": NETWORK,
            "policy": service_account,
            "account": self.account.public,
            "signingKey": encode_public(Prefix.ACCOUNT, key.latest.public_key),
            "transitKey": name,
            "keyVersion": key.latest_version,
            "hub": [self.hub.url],
            "leaf": [],
            "renewEverySeconds": 3600,
            "lifetimeSeconds": 86400,
        }
        self.vault.write_document(names.access_document(NETWORK, NAMESPACE, service_account), {**document, **members})

    async def rotate(self, service_account: str, **document: Any) -> None:
        """A new version of the key replaces the old one at once."""
        self.vault.rotate_key(names.policy_key(NETWORK, NAMESPACE, service_account))
        await self.allow(service_account, self.scopes[service_account].template)
        self.write_document(service_account, **document)

    async def revoke(self, service_account: str) -> None:
        """What the reconciler does when the Policy goes: the account first, then the grant."""
        del self.scopes[service_account]
        await self.push()
        role = names.grant_role(NETWORK, NAMESPACE, service_account)
        self.vault.delete_role(role)
        self.vault.delete_policy(names.vault_policy(role))
        self.vault.delete_document(names.access_document(NETWORK, NAMESPACE, service_account))
        self.vault.delete_key(names.policy_key(NETWORK, NAMESPACE, service_account))

    async def administrator(self) -> Connection:
        """A connection that may do everything in the account."""
        return await Connection.open(self.hub.url, self.authority, self.account.user("administrator"))

    def pod(self, folder: Path, service_account: str, **environment: str) -> SidecarPod:
        """A pod of this service account whose sidecar is not running yet."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.reviewer.token(NAMESPACE, service_account))
        settings = self.vault.settings
        port = free_port()
        return SidecarPod(
            folder,
            self.authority,
            port,
            {
                "PATH": os.environ["PATH"],
                "EDGEFARM_NETWORK": NETWORK,
                "EDGEFARM_NAMESPACE": NAMESPACE,
                "EDGEFARM_SERVICE_ACCOUNT": service_account,
                "EDGEFARM_POD_NAME": f"{service_account}-0",
                "EDGEFARM_POD_IP": "127.0.0.1",
                "EDGEFARM_MODE": "nats",
                "EDGEFARM_VAULT_ADDR": settings.address,
                "EDGEFARM_VAULT_AUTH_MOUNT": settings.auth_mount,
                "EDGEFARM_VAULT_TRANSIT_MOUNT": settings.transit_mount,
                "EDGEFARM_VAULT_KV_MOUNT": settings.kv_mount,
                "EDGEFARM_CA_BUNDLE": self.authority.pem,
                "EDGEFARM_TOKEN_FILE": str(folder / "token"),
                "EDGEFARM_CREDENTIALS_DIR": str(folder / "credentials"),
                "EDGEFARM_COMPONENTS_DIR": str(folder / "components"),
                "EDGEFARM_HEALTH_PORT": str(port),
                "EDGEFARM_REFRESH_SECONDS": "1",
                "EDGEFARM_GRANT_RETRY_SECONDS": "1",
                **environment,
            },
        )

    def _own_keys(self) -> list[ScopedKey]:
        return [ScopedKey(key.public, role, template) for role, (key, template) in self.account.keys.items()]


@dataclass
class SidecarPod:
    """The folders and the environment of one pod, and its sidecar while it runs."""

    folder: Path
    authority: Authority
    health_port: int
    environment: dict[str, str]
    process: LocalProcess | None = None

    def start(self) -> SidecarPod:
        """Start the sidecar (again)."""
        command = [sys.executable, "-m", "sidecar"]
        self.process = LocalProcess.start(
            "sidecar", command, log=self.folder / "sidecar.log", env=self.environment, cwd=Path(__file__).parents[2]
        )
        return self

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        return self.process.stop(grace=10)

    @property
    def running(self) -> LocalProcess:
        """The sidecar's process."""
        assert self.process is not None
        return self.process

    @property
    def creds(self) -> Path:
        return self.folder / "credentials" / "nats.creds"

    def credentials(self) -> tuple[str, str]:
        """JWT and seed as the application finds them."""
        return parse_creds(self.creds.read_text())

    def claims(self) -> Mapping[str, Any]:
        """What the JWT says."""
        return jwt.decode(self.credentials()[0])

    def log(self) -> str:
        """All that the sidecar (and its daprd) printed."""
        return (self.folder / "sidecar.log").read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The sidecar's own log lines."""
        parsed = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in parsed if line.get("program") == "sidecar"]

    def get(self, path: str) -> Page:
        """A page of the health port; status 0 when nothing answers."""
        try:
            return fetch("127.0.0.1", self.health_port, path, 3)
        except OSError:
            return Page(0, "")

    def ready(self) -> bool:
        """Whether the pod counts as ready."""
        return self.get("/readyz").status == 200

    async def until_ready(self, within: float = 20) -> None:
        """Wait until it is."""
        try:
            await eventually(self.ready, "sidecar ready", within)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.get('/readyz').body}\n{self.running.tail(30)}") from error

    async def until_not_ready(self, sentence: str, within: float = 20) -> None:
        """Wait until /readyz says so in these words."""
        await eventually(
            lambda: (page := self.get("/readyz")).status == 503 and sentence in page.body, sentence, within
        )

    async def until_renewed(self, since: str, within: float = 20) -> None:
        """Wait until the creds file holds another JWT than `since`."""
        await eventually(lambda: self.creds.exists() and self.credentials()[0] != since, "renewed", within)

    async def connect(self, url: str) -> Connection:
        """Connect to NATS as the application does."""
        return await Connection.open(url, self.authority, self.credentials())

    def mode_of(self, name: str) -> int:
        """Permission bits of a file in the credentials folder."""
        return stat.S_IMODE((self.creds.parent / name).stat().st_mode)
