"""Owns the text of the hub's nats-server configurations: trust in our operator, and a server that the reconciler runs.

Pure functions of values. Where a server finds its files and its address is in its own environment, so that all replicas
read the same text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from edgefarm.nats.quoting import quoted

#: Account JWTs that a resolver keeps; far beyond what one hub serves, but a bound on its disk.
RESOLVER_LIMIT: Final = 100_000
#: JetStream's domain in the hub.
DOMAIN: Final = "main"
CLIENT_PORT: Final = 4222
LEAF_PORT: Final = 7422
ROUTE_PORT: Final = 6222
MONITOR_PORT: Final = 8222

#: Variables of a server's environment that `server_config` refers to: what is different on each replica, and paths.
VARIABLE_NAME: Final = "POD_NAME"
VARIABLE_ADDRESS: Final = "POD_IP"
VARIABLE_PID_FILE: Final = "NATS_PID_FILE"
VARIABLE_CERTIFICATE: Final = "NATS_TLS_CERTIFICATE"
VARIABLE_KEY: Final = "NATS_TLS_KEY"
VARIABLE_AUTHORITY: Final = "NATS_TLS_AUTHORITY"
VARIABLE_STREAMS: Final = "NATS_STREAMS_FOLDER"
VARIABLE_ACCOUNTS: Final = "NATS_ACCOUNTS_FOLDER"

#: Seconds that a server which shall end still serves its clients, after it has given its streams to others.
LAME_DUCK_GRACE: Final = 5
#: Seconds until it has told the last of its clients to go; NATS wants 30 at least.
LAME_DUCK: Final = 30
#: How often servers compare their account JWTs: one that is new or has lost its volume refuses clients until then.
_SYNC_SECONDS: Final = 10
#: Member of the metadata by which a server says what it has loaded (VARZ, and with each answer of the system account).
METADATA_DIGEST: Final = "config"


@dataclass(frozen=True)
class Variable:
    """A value that nats-server takes from its environment when it reads its configuration."""

    name: str


@dataclass(frozen=True)
class HubIdentity:
    """The operator, and its system account with the JWT that a server begins with."""

    operator_jwt: str
    system_account: str
    system_account_jwt: str


@dataclass(frozen=True)
class HubServer:
    """What the configuration of the hub's servers says.

    `routes` are the hosts of all replicas; empty: one server that is no cluster. `file_bytes` and `memory_bytes` are
    JetStream's. `files` are contents of files beside the configuration: they belong to what a server has loaded.
    """

    identity: HubIdentity
    file_bytes: int
    memory_bytes: int
    routes: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerConfig:
    """The text of a configuration, and its digest: servers that have loaded it say so."""

    text: str
    digest: str


def hub_config(
    *,
    operator_jwt: str,
    system_account: str,
    system_account_jwt: str,
    resolver_dir: str | Variable,
    sync_interval_seconds: int = 60,
) -> str:
    """The part of a hub server's configuration that is about identity: operator, SYS account and full resolver.

    Every server of the hub keeps all account JWTs in `resolver_dir` and compares them with the others each
    `sync_interval_seconds`. Listeners, TLS, JetStream and clustering are for the caller to add.
    """
    return f"""\
operator: {quoted(operator_jwt)}
system_account: {quoted(system_account)}
resolver: {{
  type: full
  dir: {_value(resolver_dir)}
  allow_delete: true
  interval: "{sync_interval_seconds}s"
  limit: {RESOLVER_LIMIT}
  timeout: "2s"
}}
resolver_preload: {{
  {quoted(system_account)}: {quoted(system_account_jwt)}
}}
"""


def server_config(server: HubServer) -> ServerConfig:
    """The whole configuration of each of the hub's servers; ValueError says which value cannot stand in one."""
    for size in (server.file_bytes, server.memory_bytes):
        # The server reads 0 as "what this machine has".
        if not 0 < size < 2**63:
            raise ValueError(f"{size} is not a number of bytes that JetStream can have")
    text = "".join(
        (_listeners(), _identity(server.identity), _jetstream(server), _leafnodes(), _cluster(server.routes))
    )
    digest = _digest(text, server.files)
    return ServerConfig(f"{text}server_metadata {{ {METADATA_DIGEST}: {quoted(digest)} }}\n", digest)


def _listeners() -> str:
    address = _value(Variable(VARIABLE_ADDRESS))
    return f"""\
server_name: {_value(Variable(VARIABLE_NAME))}
pid_file: {_value(Variable(VARIABLE_PID_FILE))}
host: {address}
port: {CLIENT_PORT}
http_port: {MONITOR_PORT}
{_tls()}
# A client with a bad uplink may take its time; the default closes its connection after 10 s.
write_deadline: "30s"
lame_duck_grace_period: "{LAME_DUCK_GRACE}s"
lame_duck_duration: "{LAME_DUCK}s"
"""


def _identity(identity: HubIdentity) -> str:
    return hub_config(
        operator_jwt=identity.operator_jwt,
        system_account=identity.system_account,
        system_account_jwt=identity.system_account_jwt,
        resolver_dir=Variable(VARIABLE_ACCOUNTS),
        sync_interval_seconds=_SYNC_SECONDS,
    )


def _jetstream(server: HubServer) -> str:
    return f"""\
jetstream {{
  store_dir: {_value(Variable(VARIABLE_STREAMS))}
  domain: {DOMAIN}
  max_mem: {server.memory_bytes}
  max_file: {server.file_bytes}
}}
"""


def _leafnodes() -> str:
    """The listener for edge nodes, with the time that bad uplinks need (docs/edge.md)."""
    return f"""\
leafnodes {{
  host: {_value(Variable(VARIABLE_ADDRESS))}
  port: {LEAF_PORT}
  {_tls()}
  # A leaf would dial an advertised address past its uplink.
  no_advertise: true
  authorization {{ timeout: 10 }}
  write_deadline: "30s"
}}
"""


def _cluster(routes: tuple[str, ...]) -> str:
    if not routes:
        return ""
    urls = ", ".join(quoted(f"tls://{host}:{ROUTE_PORT}") for host in routes)
    return f"""\
cluster {{
  name: {DOMAIN}
  host: {_value(Variable(VARIABLE_ADDRESS))}
  port: {ROUTE_PORT}
  {_tls(verify=True)}
  # Clients come through a Service, and addresses of pods mean nothing outside of the cluster.
  no_advertise: true
  authorization {{ timeout: 10 }}
  routes: [{urls}]
}}
"""


def _tls(*, verify: bool = False) -> str:
    """Handshakes may take 10 s: the default of 2 s is too short for busy machines and bad uplinks."""
    files = f"cert_file: {_value(Variable(VARIABLE_CERTIFICATE))}, key_file: {_value(Variable(VARIABLE_KEY))}"
    mutual = f", ca_file: {_value(Variable(VARIABLE_AUTHORITY))}, verify: true" if verify else ""
    return f"tls {{ {files}{mutual}, timeout: 10 }}"


def _digest(text: str, files: Mapping[str, str]) -> str:
    """Of everything that one version of the mounted ConfigMap holds."""
    whole = "\0".join((text, *(part for name in sorted(files) for part in (name, files[name]))))
    return sha256(whole.encode()).hexdigest()[:16]


def _value(value: str | Variable) -> str:
    return f"${value.name}" if isinstance(value, Variable) else quoted(value)
