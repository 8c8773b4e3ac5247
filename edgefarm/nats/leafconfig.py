"""Owns the text of a leaf's nats-server configuration: a pure function of one frozen value.

A leaf is a full server of the same operator on an edge node. It finds account JWTs through its connection to the hub's
system account, keeps them on disk, and stores JetStream data in a domain of its own (docs/edge.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from edgefarm.nats import nkeys
from edgefarm.nats.nkeys import Prefix
from edgefarm.nats.quoting import quoted

#: How long a cached account JWT is used without having been seen again: for ever, practically. Not the largest
#: duration that the server can read: it adds this to the time of each look-up and would overflow into the past.
ACCOUNT_TTL: Final = "876000h"
#: Bytes of the largest message; the server's own default, so that hub and leafs agree.
MAX_PAYLOAD: Final = 1024 * 1024
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_METADATA: Final = re.compile(r"[a-z-]{1,64}")
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


@dataclass(frozen=True)
class ListenerTls:
    """Files with the certificate (chain) and the key that clients of the leaf see."""

    certificate: str
    key: str


@dataclass(frozen=True)
class Storage:
    """Where JetStream keeps its data and how much, in bytes. Both 0: no JetStream at all, as in the account."""

    folder: str
    file_bytes: int
    memory_bytes: int

    @property
    def enabled(self) -> bool:
        """Whether the server has JetStream."""
        return bool(self.file_bytes or self.memory_bytes)


@dataclass(frozen=True)
class Uplink:
    """The two connections to the hub: in the network's account and in the system account.

    The creds files are read again by nats-server at each connect. Without `ca_file` the hub is verified against the
    system's roots.
    """

    urls: tuple[str, ...]
    account: str
    credentials: str
    system_credentials: str
    ca_file: str | None


@dataclass(frozen=True)
class LeafServer:
    """Everything that one leaf's configuration says. `metadata` is shown by the server's monitoring as it is."""

    domain: str
    host: str
    client_port: int
    monitor_port: int
    pid_file: str
    operator_jwt: str
    system_account: str
    system_account_jwt: str
    accounts_folder: str
    storage: Storage
    uplink: Uplink
    tls: ListenerTls | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


def leaf_config(server: LeafServer) -> str:
    """The configuration; ValueError says which value cannot stand in one (InvalidCredential: which key)."""
    _check(server)
    host = f"[{server.host}]" if ":" in server.host else server.host
    parts = [
        f"server_name: {quoted(server.domain)}",
        f"listen: {quoted(f'{host}:{server.client_port}')}",
        f"http: {quoted(f'{host}:{server.monitor_port}')}",
        f"pid_file: {quoted(server.pid_file)}",
        f"max_payload: {MAX_PAYLOAD}",
        # A dead uplink is noticed within a minute; behind a mobile network's NAT the traffic keeps the binding alive.
        'ping_interval: "20s"',
        "ping_max: 2",
        *_listener_tls(server.tls),
        *_metadata(server.metadata),
        _identity(server),
        *_jetstream(server),
        _leafnodes(server),
    ]
    return "\n".join(parts) + "\n"


def _check(server: LeafServer) -> None:
    if not _DOMAIN.fullmatch(server.domain):
        raise ValueError(f"{server.domain!r} cannot be a JetStream domain: letters, digits, '-' and '_' can")
    for port in (server.client_port, server.monitor_port):
        if not 0 < port < 65536:
            raise ValueError(f"{port} is not a port")
    for name in server.metadata:
        if not _METADATA.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a name in metadata: lower-case letters and '-' can")
    for size in (server.storage.file_bytes, server.storage.memory_bytes):
        if not 0 <= size < 2**63:
            raise ValueError(f"{size} is not a number of bytes that JetStream can have")
    for account in (server.system_account, server.uplink.account):
        if nkeys.decode_public(account)[0] is not Prefix.ACCOUNT:
            raise ValueError(f"{account} is not the public key of an account")
    if not server.uplink.urls:
        raise ValueError("the hub has no URL")
    for url in server.uplink.urls:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.username or parts.password:
            raise ValueError("a URL of the hub cannot be used: write for example tls://nats.example:7422")


def _listener_tls(tls: ListenerTls | None) -> list[str]:
    if tls is None:
        return []
    return [f"tls {{\n  cert_file: {quoted(tls.certificate)}\n  key_file: {quoted(tls.key)}\n}}"]


def _metadata(metadata: Mapping[str, str]) -> list[str]:
    if not metadata:
        return []
    lines = [f"  {name}: {quoted(value)}" for name, value in sorted(metadata.items())]
    return ["\n".join(["server_metadata {", *lines, "}"])]


def _identity(server: LeafServer) -> str:
    return f"""\
operator: {quoted(server.operator_jwt)}
system_account: {quoted(server.system_account)}
resolver: {{
  type: cache
  dir: {quoted(server.accounts_folder)}
  ttl: "{ACCOUNT_TTL}"
  timeout: "2s"
}}
resolver_preload: {{
  {quoted(server.system_account)}: {quoted(server.system_account_jwt)}
}}"""


def _jetstream(server: LeafServer) -> list[str]:
    storage = server.storage
    if not storage.enabled:
        return []
    # The server reads 0 as "what this machine has". One byte is as good as none: the account's own limit is 0 then.
    return [
        f"""\
jetstream {{
  store_dir: {quoted(storage.folder)}
  domain: {quoted(server.domain)}
  max_mem: {max(1, storage.memory_bytes)}
  max_file: {max(1, storage.file_bytes)}
  sync_interval: "10s"
}}"""
    ]


def _leafnodes(server: LeafServer) -> str:
    uplink = server.uplink
    remotes = "\n".join(
        _remote(uplink, account, credentials)
        for account, credentials in (
            (uplink.account, uplink.credentials),
            (server.system_account, uplink.system_credentials),
        )
    )
    return f"""\
leafnodes {{
  no_advertise: true
  reconnect: "1s"
  write_deadline: "30s"
  remotes: [
{remotes}
  ]
}}"""


def _remote(uplink: Uplink, account: str, credentials: str) -> str:
    """One connection. Its time limits are for uplinks on which a round trip takes seconds (the defaults are 1 s)."""
    # Like this also without an own CA: `tls` in the URL alone would leave the handshake 2 s.
    ca = f"ca_file: {quoted(uplink.ca_file)}, " if uplink.ca_file else ""
    tls = any(url.startswith(("tls:", "wss:")) for url in uplink.urls)
    return "\n".join(
        [
            "    {",
            f"      urls: [{', '.join(map(quoted, uplink.urls))}]",
            f"      account: {quoted(account)}",
            f"      credentials: {quoted(credentials)}",
            *([f"      tls {{ {ca}timeout: 10 }}"] if tls or ca else []),
            '      dial_timeout: "10s"',
            '      first_info_timeout: "10s"',
            # The hub's own addresses, which it would tell, may not be reachable from here.
            "      ignore_discovered_servers: true",
            "    }",
        ]
    )
