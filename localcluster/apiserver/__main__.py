"""Run the API server: make its certificate, tokens and kubeconfig, listen, and end quickly on SIGTERM."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn

from edgefarm.telemetry import configure_logging
from localcluster.apiserver.admission import Admission
from localcluster.apiserver.app import Api
from localcluster.apiserver.audit import Audited
from localcluster.apiserver.authorization.rbac import Rbac
from localcluster.apiserver.bootstrap import create_objects
from localcluster.apiserver.cluster_ips import ClusterIPs
from localcluster.apiserver.kubelet import KubeletClient
from localcluster.apiserver.objects import Objects
from localcluster.apiserver.resources import Registry
from localcluster.apiserver.store import HISTORY, Store
from localcluster.apiserver.tokens import Tokens
from localcluster.apiserver.watching import BOOKMARK_SECONDS
from localcluster.apiserver.webhook_client import WebhookClient
from localcluster.kubeconfig import write_kubeconfig
from localcluster.network.ranges import ServiceRange
from localcluster.stack import Authority

_DESCRIPTION = """\
An in-memory Kubernetes API server for demo and tests. State is lost when it ends.
It writes DIR/ca.crt and DIR/kubeconfig (administrator, mode 0600); use it with:

    kubectl --kubeconfig DIR/kubeconfig get namespaces
"""


class _Server(uvicorn.Server):
    """Ends open watches first, so that shutting down does not wait for them."""

    def __init__(self, config: uvicorn.Config, store: Store) -> None:
        super().__init__(config)
        self._store = store

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not the inherited way: that raises the signal again in the end, and the exit status would be no success.
        self._store.end_watches()
        self.should_exit = True


def main() -> None:
    """Parse the arguments and serve until a signal."""
    parser = argparse.ArgumentParser(
        "python -m localcluster.apiserver",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data-dir", type=Path, required=True, metavar="DIR", help="where certificates and kubeconfig go"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="TCP port; 0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--history", type=int, default=HISTORY, help="changes kept per resource for watches (default: %(default)s)"
    )
    parser.add_argument(
        "--bookmark-seconds",
        type=float,
        default=BOOKMARK_SECONDS,
        help="a quiet watch gets a bookmark this often (default: %(default)s)",
    )
    parser.add_argument(
        "--audit-log", type=Path, metavar="FILE", help="append an audit event (level Metadata) for each answer here"
    )
    arguments = parser.parse_args()
    configure_logging("apiserver", "warning")
    listener = _listen(arguments.host, arguments.port)
    url = f"https://{arguments.host}:{listener.getsockname()[1]}"
    authority = Authority.create(arguments.data_dir)
    hosts = [arguments.host, "localhost", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    certificate, key = authority.issue("apiserver", hosts)
    admin_token = secrets.token_urlsafe(32)
    write_kubeconfig(arguments.data_dir / "kubeconfig", url, authority.certificate, admin_token)

    store = Store(arguments.history)
    registry = Registry()
    services = ServiceRange.claim()
    rbac = Rbac(store)
    addresses = ClusterIPs(store, services.network)
    objects = Objects(store, registry, Admission(store, WebhookClient(store)), rbac, addresses)
    create_objects(store, registry, services.network, datetime.now(UTC))
    kubelets = KubeletClient(store, certificate, key)
    tokens = Tokens(store, admin_token)
    api = Api(objects, tokens, rbac, kubelets, url=url, bookmark_seconds=arguments.bookmark_seconds)
    application = api.application()
    config = uvicorn.Config(
        Audited(application, arguments.audit_log) if arguments.audit_log else application,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    print(f"ready: {url} (kubeconfig: {arguments.data_dir / 'kubeconfig'})", flush=True)
    try:
        _Server(config, store).run([listener])
    finally:
        services.close()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        sys.exit(f"cannot listen on {host}:{port}: {error.strerror}")
    listener.listen(256)
    return listener


if __name__ == "__main__":
    main()
