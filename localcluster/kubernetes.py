"""Kubernetes API servers as local processes: our own, or a real etcd and kube-apiserver, with the same attributes."""

from __future__ import annotations

import secrets
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from localcluster.kubeconfig import write_kubeconfig
from localcluster.process import LocalProcess, StartError, accepts, free_port
from localcluster.stack import Authority, write_private

#: Issuer and default audience of service account tokens, as in most clusters.
ISSUER = "https://kubernetes.default.svc.cluster.local"


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
    def start(cls, folder: Path, host: str = "127.0.0.1", port: int = 0) -> LocalApiServer:
        """Start it with its files in `folder` and return when it answers."""
        port = port or free_port(host)
        return cls.launch(folder, ["--data-dir", str(folder), "--host", host, "--port", str(port)], host, port)

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

    @classmethod
    def start(cls, folder: Path, assets: Path, host: str = "127.0.0.1", port: int = 0) -> RealApiServer:
        """Start both with their files in `folder` and return when the API server is ready."""
        folder.mkdir(parents=True, exist_ok=True)
        port = port or free_port(host)
        etcd, etcd_url = _start_etcd(folder, assets, host)
        authority = Authority.create(folder)
        url, kubeconfig = f"https://{host}:{port}", folder / "kubeconfig"
        admin_token = secrets.token_urlsafe(32)
        write_private(folder / "tokens.csv", f"{admin_token},admin,admin,system:masters\n".encode())
        write_kubeconfig(kubeconfig, url, authority.certificate, admin_token)
        command = [str(assets / "kube-apiserver"), f"--etcd-servers={etcd_url}", *_flags(folder, authority, host, port)]
        process = LocalProcess.start("kube-apiserver", command, log=folder / "kube-apiserver.log")
        try:
            _wait_ready(process, url, authority.certificate, timeout=90)
        except StartError:
            process.stop()
            etcd.stop()
            raise
        return cls(process, etcd, url, kubeconfig, authority.certificate, admin_token)

    def stop(self) -> None:
        self.process.stop()
        self.etcd.stop()


def start_api_server(
    folder: Path, assets: Path | None = None, host: str = "127.0.0.1", port: int = 0
) -> LocalApiServer | RealApiServer:
    """The real programs of `assets` (the value of KUBEBUILDER_ASSETS) when given, else our own server."""
    if assets is not None:
        return RealApiServer.start(folder, assets, host, port)
    return LocalApiServer.start(folder, host, port)


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
        "--service-cluster-ip-range=10.96.0.0/16",
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


def _token_of(kubeconfig: Path) -> str:
    document = yaml.safe_load(kubeconfig.read_text())
    return str(document["users"][0]["user"]["token"])
