"""The daprd process: its files, its command line and environment, start and end. When, is decided in `supervision`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sidecar import component
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials
from sidecar.health import fetch
from sidecar.route import Place
from sidecar.settings import DaprSettings
from sidecar.store import FOR_SIDECAR, write_file
from sidecar.upstream import Upstream

#: Seconds for an answer of its health endpoint, which is on the same machine.
_HEALTH_TIMEOUT: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1
#: Folder of its own, because daprd warns about every other file that it finds beside its resources.
_RESOURCES: Final = "resources"
_COMPONENT: Final = "network.yaml"
_CONFIGURATION: Final = "config.yaml"
_TRUST: Final = "trust.pem"


class Daprd:
    """The one daprd of this pod; `loaded` is what its component holds.

    Secrets reach it by file only, never by argument or environment.
    """

    def __init__(self, settings: DaprSettings, ca_bundle: str | None, connection: str) -> None:
        self._settings = settings
        self._ca_bundle = ca_bundle
        self._connection = connection
        self._process: subprocess.Popen[bytes] | None = None
        self._leaf_ca: str | None = None
        self.loaded: Credentials | None = None

    def prepare(self) -> None:
        """Write the configuration, which does not change."""
        write_file(self._settings.components_dir / _CONFIGURATION, component.CONFIGURATION.encode(), FOR_SIDECAR)

    def load(self, credentials: Credentials, urls: Sequence[str], since: int) -> None:
        """Replace the component; a running daprd sees that and loads it again."""
        text = component.render(credentials, urls, self._connection, since)
        write_file(self._settings.components_dir / _RESOURCES / _COMPONENT, text.encode(), FOR_SIDECAR)
        self.loaded = credentials

    def trusts(self, access: AccessDocument, upstream: Upstream) -> bool:
        """Whether the running process knows the authority of these servers; it reads certificates once."""
        return upstream.place is not Place.LEAF or access.leaf_ca in (None, self._leaf_ca)

    def start(self) -> None:
        """Start the process with what was loaded; its output goes where ours goes. OSError when it cannot be started.

        Call it from the main thread: the kernel ends daprd when the thread that started it ends, so that a sidecar
        that was killed leaves nothing behind.
        """
        self._leaf_ca = self.loaded.access.leaf_ca if self.loaded is not None else None
        own = [pem for pem in (self._ca_bundle, self._leaf_ca) if pem is not None]
        trust = self._settings.components_dir / _TRUST if own else None
        if trust is not None:
            write_file(trust, trusted("\n".join(own)).encode(), FOR_SIDECAR)
        self._process = subprocess.Popen(
            command(self._settings),
            stdin=subprocess.DEVNULL,
            env=environment(os.environ, trust),
            preexec_fn=_end_with_parent,
        )

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def exit_status(self) -> int | None:
        """Its exit status, once, after it has ended."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._process = None
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def healthy(self) -> bool:
        """Whether it serves the application: the endpoint that does not wait for the application's own port."""
        try:
            page = fetch(
                self._settings.listen_address, self._settings.http_port, "/v1.0/healthz/outbound", _HEALTH_TIMEOUT
            )
        except OSError:
            return False
        return page.status < 300


def command(settings: DaprSettings) -> list[str]:
    """The command line. Everything listens on one address, so that pods that share a machine do not meet."""
    address = settings.listen_address
    arguments: dict[str, str | int | None] = {
        "mode": "standalone",
        "app-id": settings.app_id,
        "app-channel-address": address,
        "app-protocol": settings.app_protocol,
        "resources-path": str(settings.components_dir / _RESOURCES),
        "dapr-listen-addresses": address,
        "dapr-http-port": settings.http_port,
        "dapr-grpc-port": settings.grpc_port,
        "dapr-internal-grpc-listen-address": address,
        "dapr-graceful-shutdown-seconds": settings.shutdown_seconds,
        "log-level": settings.log_level,
        # Its metrics would listen on every address of the pod; ours say what the platform needs to know.
        "enable-metrics": "false",
        "app-port": settings.app_port,
        "app-max-concurrency": settings.app_max_concurrency,
        "max-body-size": settings.max_body_size,
    }
    # daprd reads them in order, and what a later one sets holds: the user's wins.
    configurations = [settings.components_dir / _CONFIGURATION, *([settings.config] if settings.config else [])]
    return [
        settings.program,
        *(f"--{name}={value}" for name, value in arguments.items() if value is not None),
        *(f"--config={path}" for path in configurations),
        *(["--enable-api-logging"] if settings.api_logging else []),
        "--log-as-json",
    ]


def environment(variables: Mapping[str, str], trust: Path | None) -> dict[str, str]:
    """Ours without what is only for the sidecar. The component has no field for a CA, Go reads SSL_CERT_FILE."""
    kept = {name: value for name, value in variables.items() if not name.startswith("EDGEFARM_")}
    return kept if trust is None else {**kept, "SSL_CERT_FILE": str(trust)}


def trusted(ca_bundle: str) -> str:
    """The system's root certificates and ours, as PEM."""
    system = ssl.get_default_verify_paths().cafile
    with contextlib.suppress(OSError):
        return Path(system or "").read_text() + "\n" + ca_bundle
    return ca_bundle


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
