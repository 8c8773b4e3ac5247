"""A local operator with its keys in memory, and real nats-servers that trust it: for tests of every area.

The programs have Vault sign; tests sign with keys of their own, so that they need no Vault.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from edgefarm.nats import claims, creds, jwt, nkeys
from edgefarm.nats.claims import AccountLimits, ScopedKey
from edgefarm.nats.nkeys import KeyPair, Prefix
from edgefarm.nats.serverconfig import hub_config
from edgefarm.nats.templates import PermissionTemplate
from localcluster.process import free_port
from localcluster.stack import Authority, NatsServer

#: A user JWT with its seed.
Credentials = tuple[str, str]

#: Issue times must increase strictly, also within one second.
_ISSUED = itertools.count(int(time.time()) - 100_000)


def sign(body: Mapping[str, Any], key: KeyPair) -> str:
    """A token over `body`, signed by a key in memory."""
    data = jwt.signing_input(body)
    return jwt.assemble(data, nkeys.sign(key.seed, data))


def jti() -> str:
    """A random token id."""
    return secrets.token_hex(16)


def make_user(account: str, scope: KeyPair, *, name: str = "user", lifetime: int = 3600, **extra: Any) -> Credentials:
    """A new user under the signing key `scope`; `extra` goes into its `nats` member (a server refuses it)."""
    key, now = nkeys.generate_user(), int(time.time())
    body = claims.user_claims(
        name=name,
        subject=key.public,
        issuer=scope.public,
        account=account,
        jti=jti(),
        issued_at=now,
        expires_at=now + lifetime,
    )
    return sign({**body, "nats": {**body["nats"], **extra}}, scope), key.seed


@dataclass
class LocalAccount:
    """An account with its scoped keys; change `keys` or `limits` and ask for `token()` again."""

    operator: LocalOperator
    name: str
    key: KeyPair
    limits: AccountLimits
    keys: dict[str, tuple[KeyPair, PermissionTemplate]] = field(default_factory=dict)

    @property
    def public(self) -> str:
        return self.key.public

    def scope(self, role: str, template: PermissionTemplate) -> KeyPair:
        """Add a scoped signing key (or replace the template of the role's key)."""
        key = self.keys[role][0] if role in self.keys else nkeys.generate(Prefix.ACCOUNT)
        self.keys[role] = (key, template)
        return key

    def token(self) -> str:
        """The account's JWT as it should be now, newer than any before."""
        body = claims.account_claims(
            name=self.name,
            account=self.public,
            jti=jti(),
            issued_at=next(_ISSUED),
            issuer=self.operator.signing.public,
            limits=self.limits,
            signing_keys=[ScopedKey(key.public, role, template) for role, (key, template) in self.keys.items()],
        )
        return sign(body, self.operator.signing)

    def user(self, role: str, *, name: str = "user", lifetime: int = 3600, **extra: Any) -> Credentials:
        """A user with the permissions of `role`."""
        return make_user(self.public, self.keys[role][0], name=name, lifetime=lifetime, **extra)


@dataclass(frozen=True)
class LocalOperator:
    """An operator with strict signing keys and a system account, as the bootstrap makes it in Vault."""

    identity: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.OPERATOR))
    signing: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.OPERATOR))
    spare: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.OPERATOR))
    system: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.ACCOUNT))
    controller: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.ACCOUNT))
    leaf: KeyPair = field(default_factory=lambda: nkeys.generate(Prefix.ACCOUNT))

    def token(self) -> str:
        """The operator's JWT."""
        body = claims.operator_claims(
            name="test",
            operator=self.identity.public,
            signing_keys=[self.signing.public, self.spare.public],
            system_account=self.system.public,
            jti=jti(),
            issued_at=next(_ISSUED),
        )
        return sign(body, self.identity)

    def system_token(self) -> str:
        """The system account's JWT."""
        body = claims.system_account_claims(
            name="SYS",
            account=self.system.public,
            controller_key=self.controller.public,
            leaf_key=self.leaf.public,
            jti=jti(),
            issued_at=next(_ISSUED),
            issuer=self.signing.public,
        )
        return sign(body, self.signing)

    def hub_config(self, resolver_dir: Path) -> str:
        """What `NatsServer.start(auth=…)` needs to trust this operator."""
        return hub_config(
            operator_jwt=self.token(),
            system_account=self.system.public,
            system_account_jwt=self.system_token(),
            resolver_dir=str(resolver_dir),
        )

    def account(self, name: str, limits: AccountLimits | None = None) -> LocalAccount:
        """A new account; nothing is pushed."""
        return LocalAccount(self, name, nkeys.generate(Prefix.ACCOUNT), limits or AccountLimits())

    def delete_token(self, *accounts: str) -> str:
        """A request to delete accounts."""
        body = claims.delete_claims(accounts=accounts, issuer=self.signing.public, jti=jti(), issued_at=next(_ISSUED))
        return sign(body, self.signing)

    def leaf_credentials(self) -> Credentials:
        """A new user of the system account with a leaf's rights."""
        return make_user(self.system.public, self.leaf, name="leaf")

    async def system_credentials(self) -> Credentials:
        """A new user of the system account with the reconciler's rights (a credential provider for SystemClient)."""
        return make_user(self.system.public, self.controller, name="reconciler")


@dataclass
class Hub:
    """One or more clustered servers that trust an operator."""

    operator: LocalOperator
    authority: Authority
    folder: Path
    servers: dict[str, NatsServer]
    _routes: dict[str, int]
    _leafs: bool = False

    @classmethod
    def start(
        cls, folder: Path, authority: Authority, operator: LocalOperator, size: int = 1, *, leafs: bool = False
    ) -> Hub:
        """Start `size` servers with full resolvers; with more than one they form a cluster. `leafs`: they listen for
        leaf nodes, too."""
        names = [f"hub-{number}" for number in range(size)]
        hub = cls(operator, authority, folder, {}, {name: free_port() for name in names} if size > 1 else {}, leafs)
        for name in names:
            hub.start_server(name)
        return hub

    def start_server(self, name: str) -> NatsServer:
        """Start a server, or start it again on its port and data."""
        before = self.servers.get(name)
        port = _port(before.url) if before else 0
        leaf_port = (_port(before.leaf_url) if before else 0) if self._leafs else None
        auth = self.operator.hub_config(self.resolver_dir(name))
        if self._routes:
            routes = ", ".join(f'"nats://127.0.0.1:{other}"' for other in self._routes.values())
            auth += f"cluster {{ name: hub, listen: 127.0.0.1:{self._routes[name]}, routes: [{routes}] }}\n"
        folder = self.folder / name
        server = NatsServer.start(folder, self.authority, auth=auth, name=name, port=port, leaf_port=leaf_port)
        self.servers[name] = server
        return server

    def resolver_dir(self, name: str) -> Path:
        """Where the server keeps its account JWTs."""
        return self.folder / name / "accounts"

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers.values()]

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def leaf_url(self) -> str:
        """Where leaf nodes connect."""
        return next(iter(self.servers.values())).leaf_url

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()


class Connection:
    """A NATS client for tests: logs in with a JWT and a seed, does not reconnect, keeps the errors it is told."""

    def __init__(self) -> None:
        self.client = Client()
        self.errors: list[str] = []
        self.closed = asyncio.Event()

    @classmethod
    async def open(cls, url: str, authority: Authority, credentials: Credentials, **options: Any) -> Connection:
        """Connect, or raise nats.errors.Error when the server refuses the login."""
        connection, (token, seed) = cls(), credentials
        try:
            await connection.client.connect(
                url,
                tls=ssl.create_default_context(cadata=authority.pem),
                user_jwt_cb=token.encode,
                signature_cb=lambda nonce: base64.b64encode(nkeys.sign(seed, nonce.encode())),
                error_cb=connection._note,
                closed_cb=connection._close,
                **{"allow_reconnect": False, "max_reconnect_attempts": 1, "connect_timeout": 5, **options},
            )
        except BaseException:
            await connection.client.close()
            raise
        return connection

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def settle(self) -> None:
        """Return when the server has worked off all that was sent, and its answers (errors, too) are here."""
        # nats-py writes the PING of a flush ahead of what is still in its buffer, so only the second one is a barrier.
        await self.client.flush()
        await self.client.flush()

    async def _note(self, error: Exception) -> None:
        self.errors.append(str(error))

    async def _close(self) -> None:
        self.closed.set()


async def eventually(condition: Callable[[], bool], what: str, within: float = 5.0) -> None:
    """Return when `condition()` holds; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.01)


def write_creds(path: Path, credentials: Credentials) -> Path:
    """Write a creds file."""
    path.write_text(creds.format_creds(*credentials))
    return path


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
