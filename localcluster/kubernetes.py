"""Kubernetes API servers: our own, a real etcd and kube-apiserver, or one that runs already, with the same attributes.

Tests are told which by the environment: see `start_api_server`.
"""

from __future__ import annotations

import os
import secrets
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from edgefarm.errors import InvalidResource
from localcluster.connection import Connection
from localcluster.kubeconfig import write_kubeconfig
from localcluster.network.ranges import ServiceRange
from localcluster.process import LocalProcess, StartError, accepts, free_port
from localcluster.stack import Authority, write_private

#: Issuer and default audience of service account tokens, as in most clusters.
ISSUER = "https://kubernetes.default.svc.cluster.local"
#: Names the kubeconfig of a cluster that runs already; its current context is used.
KUBECONFIG_VARIABLE: Final = "EDGEFARM_TEST_KUBECONFIG"
#: Who did what, and whether it was allowed; nothing of the objects themselves.
_AUDIT_POLICY: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ApiServer(Protocol):
    """A running API server and what its administrator needs."""

    @property
    def process(self) -> LocalProcess: ...
    @property
    def url(self) -> str: ...
    @property
    def kubeconfig(self) -> Path: ...
    @property
    def ca(self) -> Path: ...
    @property
    def admin_token(self) -> str: ...

    def stop(self) -> None: ...


@dataclass(frozen=True)
class LocalApiServer:
    """Our own in-memory API server (`python -m localcluster.apiserver`)."""

    process: LocalProcess
    url: str
    kubeconfig: Path
    ca: Path
    admin_token: str = field(repr=False)

    @classmethod
    def start(
        cls, folder: Path, host: str = "127.0.0.1", port: int = 0, audit_log: Path | None = None
    ) -> LocalApiServer:
        """Start it with its files in `folder` and return when it answers."""
        port = port or free_port(host)
        arguments = ["--data-dir", str(folder), "--host", host, "--port", str(port)]
        if audit_log is not None:
            arguments += ["--audit-log", str(audit_log)]
        return cls.launch(folder, arguments, host, port)

    @classmethod
    def launch(cls, folder: Path, arguments: list[str], host: str, port: int) -> LocalApiServer:
        """Start it with these command line arguments, which name the same folder, host and port."""
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "localcluster.apiserver", *arguments]
        process = LocalProcess.start("apiserver", command, log=folder / "apiserver.log")
        url, ca, kubeconfig = f"https://{host}:{port}", folder / "ca.crt", folder / "kubeconfig"
        _wait_ready(process, url, ca)
        return cls(process, url, kubeconfig, ca, _token_of(kubeconfig))

    def stop(self) -> None:
        self.process.stop()


@dataclass(frozen=True)
class RealApiServer:
    """A real etcd and kube-apiserver from a folder such as `setup-envtest` installs."""

    process: LocalProcess
    etcd: LocalProcess
    url: str
    kubeconfig: Path
    ca: Path
    admin_token: str = field(repr=False)
    services: ServiceRange

    @classmethod
    def start(
        cls, folder: Path, assets: Path, host: str = "127.0.0.1", port: int = 0, audit_log: Path | None = None
    ) -> RealApiServer:
        """Start both with their files in `folder` and return when the API server is ready."""
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port(host)
        etcd, etcd_url = _start_etcd(folder, assets, host)
        authority = Authority.create(folder)
        url, kubeconfig = f"https://{host}:{port}", folder / "kubeconfig"
        admin_token = secrets.token_urlsafe(32)
        write_private(folder / "tokens.csv", f"{admin_token},admin,admin,system:masters\n".encode())
        write_kubeconfig(kubeconfig, url, authority.certificate, admin_token)
        services = ServiceRange.claim()
        command = [str(assets / "kube-apiserver"), f"--etcd-servers={etcd_url}", *_flags(folder, authority, host, port)]
        # Loopback addresses, so that the node runner can listen there.
        command.append(f"--service-cluster-ip-range={services.network}")
        if audit_log is not None:
            policy = folder / "audit-policy.yaml"
            policy.write_text(yaml.safe_dump(_AUDIT_POLICY))
            command += [f"--audit-policy-file={policy}", f"--audit-log-path={audit_log}"]
        process = LocalProcess.start("kube-apiserver", command, log=folder / "kube-apiserver.log")
        try:
            _wait_ready(process, url, authority.certificate, timeout=90)
        except StartError:
            process.stop()
            etcd.stop()
            services.close()
            raise
        return cls(process, etcd, url, kubeconfig, authority.certificate, admin_token, services)

    def stop(self) -> None:
        self.process.stop()
        self.etcd.stop()
        self.services.close()


@dataclass(frozen=True)
class GivenApiServer:
    """The API server of a kubeconfig, which somebody else runs: it is used as it is and not stopped."""

    connection: Connection
    kubeconfig: Path
    ca: Path

    @classmethod
    def take(cls, folder: Path, kubeconfig: Path) -> GivenApiServer:
        """Return when it answers; raise StartError with what is wrong. Its authority is written into `folder`."""
        try:
            connection = Connection.from_kubeconfig(kubeconfig)
        except (OSError, InvalidResource) as error:
            raise StartError(f"{KUBECONFIG_VARIABLE}: {kubeconfig} cannot be used: {error}") from error
        except (KeyError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
            raise StartError(f"{KUBECONFIG_VARIABLE}: {kubeconfig} is no kubeconfig") from error
        if not connection.ca:
            raise StartError(f"{KUBECONFIG_VARIABLE}: the cluster in {kubeconfig} has no certificate-authority")
        folder.mkdir(parents=True, exist_ok=True)
        ca = folder / "ca.crt"
        ca.write_text(connection.ca)
        try:
            _get(connection, "/readyz")
        except OSError as error:
            raise StartError(f"{KUBECONFIG_VARIABLE}: {connection.server} is not ready: {error}") from error
        return cls(connection, kubeconfig, ca)

    @property
    def url(self) -> str:
        return self.connection.server

    @property
    def admin_token(self) -> str:
        if not self.connection.token:
            raise StartError(f"{KUBECONFIG_VARIABLE}: this needs a user with a token, {self.kubeconfig} has another")
        return self.connection.token

    @property
    def process(self) -> LocalProcess:
        raise StartError(f"this needs an API server that it starts itself: unset {KUBECONFIG_VARIABLE}")

    def stop(self) -> None:
        """Do nothing: whoever started it stops it."""


def start_api_server(
    folder: Path,
    assets: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    audit_log: Path | None = None,
) -> LocalApiServer | RealApiServer | GivenApiServer:
    """The cluster that EDGEFARM_TEST_KUBECONFIG names, else the real programs of `assets`, else our own server.

    `assets` is the value of KUBEBUILDER_ASSETS. `audit_log` is a file to which a server that is started here appends
    audit events of level Metadata. Raises StartError with what is wrong.
    """
    if given := os.environ.get(KUBECONFIG_VARIABLE):
        return GivenApiServer.take(folder, Path(given))
    if assets is not None:
        return RealApiServer.start(folder, assets, host, port, audit_log)
    return LocalApiServer.start(folder, host, port, audit_log)


def _start_etcd(folder: Path, assets: Path, host: str) -> tuple[LocalProcess, str]:
    client, peer = free_port(host), free_port(host)
    url = f"http://{host}:{client}"
    flags = [f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
    flags += [f"--listen-peer-urls=http://{host}:{peer}", "--unsafe-no-fsync", "--log-level=warn"]
    process = LocalProcess.start("etcd", [str(assets / "etcd"), *flags], log=folder / "etcd.log")
    return process.wait_until(lambda: accepts(host, client), "listening"), url


def _flags(folder: Path, authority: Authority, host: str, port: int) -> list[str]:
    certificate, key = authority.issue("kube-apiserver", [host, "localhost", "kubernetes.default.svc"])
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = signing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(folder / "service-accounts.key", pem)
    return [
        f"--bind-address={host}",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        # Nodes know the API server by this certificate; their names are no DNS names here.
        f"--kubelet-client-certificate={certificate}",
        f"--kubelet-client-key={key}",
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        f"--service-account-key-file={folder / 'service-accounts.key'}",
        f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
        f"--service-account-issuer={ISSUER}",
        f"--api-audiences={ISSUER}",
        "--service-account-extend-token-expiration=false",
        "--allow-privileged=true",
        # Deleted objects leave the watch cache and etcd quickly enough by themselves; profiling is not needed.
        "--profiling=false",
    ]


def _wait_ready(process: LocalProcess, url: str, ca: Path, timeout: float = 20.0) -> None:
    def ready() -> bool:
        if not ca.exists():
            return False
        try:
            context = ssl.create_default_context(cafile=str(ca))
            with urllib.request.urlopen(f"{url}/readyz", timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, ssl.SSLError):
            return False

    try:
        process.wait_until(ready, "ready", timeout)
    except StartError:
        process.stop()
        raise


def _get(connection: Connection, path: str) -> None:
    """One GET as the kubeconfig's user; OSError unless it succeeds."""
    headers = {"Authorization": f"Bearer {connection.token}"} if connection.token else {}
    request = urllib.request.Request(connection.server + path, headers=headers)
    with urllib.request.urlopen(request, timeout=10, context=connection.ssl_context()):
        pass


def _token_of(kubeconfig: Path) -> str:
    document = yaml.safe_load(kubeconfig.read_text())
    return str(document["users"][0]["user"]["token"])
