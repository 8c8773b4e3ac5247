"""Decides what nats-server's configuration says, and what a running server must be told to have it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from hashlib import sha256
from typing import Final

from edgefarm.nats import jwt
from edgefarm.nats.leafconfig import LeafServer, ListenerTls, Storage, Uplink, leaf_config
from sidecar.leaf.access import LeafAccess
from sidecar.leaf.settings import LeafSettings
from sidecar.leaf.store import LeafStore

#: Members of the server's metadata, which its monitoring shows: so a running server tells what it was started with.
_WHOLE: Final = "configuration"
_FIXED: Final = "fixed"
_FILE: Final = "file-storage"
_MEMORY: Final = "memory-storage"


class Change(Enum):
    """What brings a running server to the wanted configuration."""

    NONE = "none"
    RELOAD = "reload"  # clients stay connected
    RESTART = "restart"


def server_of(settings: LeafSettings, access: LeafAccess, store: LeafStore, certificate: bytes | None) -> LeafServer:
    """What nats-server is to run as. `certificate` are certificate and key of its listener (None: no TLS): when these
    files change, the configuration that names them counts as changed."""
    shared = settings.server
    tls_dir = shared.tls_dir
    server = LeafServer(
        domain=settings.domain,
        host=shared.host,
        client_port=shared.client_port,
        monitor_port=shared.monitor_port,
        pid_file=str(shared.pid_file),
        operator_jwt=access.server.operator_jwt,
        system_account=str(jwt.decode(access.server.system_account_jwt, verify=False).get("sub")),
        system_account_jwt=access.server.system_account_jwt,
        accounts_folder=str(shared.data_dir / "accounts"),
        storage=Storage(str(shared.data_dir / "jetstream"), access.server.file_storage, access.server.memory_storage),
        uplink=Uplink(
            urls=access.hub,
            account=access.account,
            credentials=str(store.network),
            system_credentials=str(store.system),
            ca_file=str(shared.hub_ca) if settings.ca_bundle is not None else None,
        ),
        tls=ListenerTls(str(tls_dir / "tls.crt"), str(tls_dir / "tls.key")) if tls_dir is not None else None,
    )
    return replace(server, metadata=_metadata(server, certificate or b""))


def change_to(wanted: LeafServer, running: Mapping[str, str]) -> Change:
    """What a server with this metadata must be told.

    Hub URLs, certificates and larger storage can be reloaded. nats-server refuses to reload smaller storage and an
    operator; domain, folders and listeners are what its data and its clients hang on.
    """
    if running.get(_WHOLE) == wanted.metadata[_WHOLE]:
        return Change.NONE
    if running.get(_FIXED) != wanted.metadata[_FIXED]:
        return Change.RESTART
    grown = all(_number(running, name) <= _number(wanted.metadata, name) for name in (_FILE, _MEMORY))
    return Change.RELOAD if grown else Change.RESTART


def _metadata(server: LeafServer, certificate: bytes) -> dict[str, str]:
    # Nothing but what can be reloaded is blanked out.
    fixed = replace(
        server,
        uplink=replace(server.uplink, urls=("tls://hub:7422",)),
        storage=replace(server.storage, file_bytes=int(server.storage.enabled), memory_bytes=0),
    )
    return {
        _WHOLE: _digest(leaf_config(server).encode(), certificate),
        _FIXED: _digest(leaf_config(fixed).encode()),
        _FILE: str(server.storage.file_bytes),
        _MEMORY: str(server.storage.memory_bytes),
    }


def _number(metadata: Mapping[str, str], name: str) -> int:
    text = metadata.get(name, "")
    return int(text) if text.isdecimal() else 0


def _digest(*parts: bytes) -> str:
    return sha256(b"\0".join(parts)).hexdigest()
