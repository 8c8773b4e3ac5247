"""Real OpenBao and nats-server processes on loopback, over TLS, for demo and tests."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edgefarm import pki
from localcluster.process import LocalProcess, StartError, accepts, free_port

#: Where pods see servers that stand behind an uplink (`localcluster.network.uplinks`); certificates name it, too.
UPLINK_HOST: Final = "127.0.0.3"


def find_program(name: str) -> str:
    """Path of a program that a wheel of this environment installed, else of one on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise StartError(f"{name} is not installed: run the project's set-up (make setup)")
    return found


@dataclass(frozen=True)
class Authority:
    """The stack's own certificate authority with its files in `folder`."""

    folder: Path
    pair: pki.KeyPair = field(repr=False)

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """Make an authority that is valid for ten years and write `ca.crt`."""
        folder.mkdir(parents=True, exist_ok=True)
        pair = pki.make_authority("localcluster", now=datetime.now(UTC), lifetime=timedelta(days=3650))
        (folder / "ca.crt").write_bytes(pair.certificate)
        return cls(folder, pair)

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def pem(self) -> str:
        return self.pair.certificate.decode()

    def issue(self, name: str, hosts: list[str]) -> tuple[Path, Path]:
        """Write `<name>.crt` and `<name>.key` (0600) for `hosts`; return their paths."""
        pair = pki.issue(self.pair, hosts, now=datetime.now(UTC), lifetime=timedelta(days=365), client=True)
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(pair.certificate)
        write_private(key, pair.private_key)
        return certificate, key


@dataclass(frozen=True)
class OpenBao:
    """A running, unsealed OpenBao with its root token."""

    process: LocalProcess
    address: str
    root_token: str = field(repr=False)
    ca: Path

    @classmethod
    def start(cls, folder: Path, authority: Authority, host: str = "127.0.0.1", port: int = 0) -> OpenBao:
        """Start OpenBao (raft, static seal) and initialise it when `folder` is new; a restart unseals by itself."""
        port = port or free_port(host)
        address = f"https://{host}:{port}"
        config, log = _write_bao_config(folder, authority, host, port), folder / "openbao.log"
        process = LocalProcess.start(
            "openbao", [find_program("bao"), "server", f"-config={config}"], log=log, env=_plain_environment()
        )
        client = _BaoClient(address, authority.certificate)
        process.wait_until(lambda: client.health() is not None, "answering")
        token_file = folder / "root-token"
        if client.health() == 501:  # not initialised
            answer = client.call("PUT", "/v1/sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
            write_private(token_file, answer["root_token"].encode())
        process.wait_until(lambda: client.health() == 200, "unsealed and active")
        return cls(process, address, token_file.read_text(), authority.certificate)

    def stop(self) -> None:
        self.process.stop()


@dataclass(frozen=True)
class NatsServer:
    """A running nats-server."""

    process: LocalProcess
    url: str
    monitor: str
    ca: Path
    leaf_url: str = ""
    """Where leaf nodes connect, over TLS; empty without such a listener."""

    @classmethod
    def start(
        cls,
        folder: Path,
        authority: Authority,
        *,
        auth: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        name: str = "hub",
        leaf_port: int | None = None,
    ) -> NatsServer:
        """Start a server with TLS and JetStream (domain `main`); `auth` is configuration text (operator, resolver, …).

        It listens for leaf nodes only when there is a `leaf_port`, of which 0 takes a free one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port, monitor = port or free_port(host), free_port(host)
        certificate, key = authority.issue(f"nats-{name}", [host, "localhost", UPLINK_HOST])
        # Seconds for the handshake: the default of 2 is too short for busy machines and for bad uplinks.
        tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: 10 }}'
        leafs = "" if leaf_port is None else f"{host}:{leaf_port or free_port(host)}"
        config = folder / f"{name}.conf"
        config.write_text(
            f"server_name: {name}\nlisten: {host}:{port}\nhttp: {host}:{monitor}\n{tls}\n"
            f'jetstream {{ store_dir: "{folder / "jetstream"}", domain: main }}\n{auth}\n'
            # Leafs would dial an advertised address past their uplink.
            + (f"leafnodes {{ listen: {leafs}, no_advertise: true, {tls} }}\n" if leafs else "")
        )
        process = LocalProcess.start(
            f"nats {name}", [find_program("nats-server"), "-c", str(config)], log=folder / f"{name}.log"
        )
        # The server opens the listener for clients last.
        process.wait_until(lambda: accepts(host, port) and accepts(host, monitor), "listening")
        url, leaf_url = f"tls://{host}:{port}", f"tls://{leafs}" if leafs else ""
        return cls(process, url, f"http://{host}:{monitor}", authority.certificate, leaf_url)

    def stop(self) -> None:
        self.process.stop()


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _write_bao_config(folder: Path, authority: Authority, host: str, port: int) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    certificate, key = authority.issue("openbao", [host, "localhost", UPLINK_HOST])
    seal = folder / "seal.key"
    if not seal.exists():
        write_private(seal, os.urandom(32))
    cluster_port = free_port(host)
    config = folder / "openbao.hcl"
    config.write_text(
        f'storage "raft" {{ path = "{folder / "data"}" node_id = "one" performance_multiplier = 1 }}\n'
        f'listener "tcp" {{ address = "{host}:{port}" cluster_address = "{host}:{cluster_port}" '
        f'tls_cert_file = "{certificate}" tls_key_file = "{key}" }}\n'
        f'seal "static" {{ current_key_id = "one" current_key = "file://{seal}" }}\n'
        f'api_addr = "https://{host}:{port}"\ncluster_addr = "https://{host}:{cluster_port}"\n'
        f'disable_mlock = true\nlog_level = "warn"\n'
    )
    return config


class _BaoClient:
    """Just enough of the HTTP API to initialise a server; everything else goes through `edgefarm.vault`."""

    def __init__(self, address: str, ca: Path) -> None:
        self._address = address
        self._context = ssl.create_default_context(cafile=str(ca))

    def health(self) -> int | None:
        """HTTP status of /sys/health (200 active, 501 not initialised, 503 sealed); None when nothing answers."""
        try:
            self.call("GET", "/v1/sys/health")
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None
        return 200

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self._address + path, method=method, data=None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=10, context=self._context) as response:
            return json.loads(response.read() or b"null")


def _plain_environment() -> dict[str, str]:
    # A developer's own VAULT_* or BAO_* variables must not change what the demo's server does.
    return {name: value for name, value in os.environ.items() if not name.startswith(("VAULT_", "BAO_"))}
