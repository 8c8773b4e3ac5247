"""Gets credentials as a pod would, with the real sidecar outside of any pod, to try with them what must not work."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError

from edgefarm import names
from localcluster.demo.installation import Installation
from localcluster.demo.report import CheckFailed
from localcluster.platform import ROOT
from localcluster.process import LocalProcess, free_port
from localcluster.stack import write_private


@asynccontextmanager
async def credentials_of(platform: Installation, network: str, namespace: str, account: str) -> AsyncIterator[Path]:
    """A creds file of one service account; the sidecar that keeps it runs inside the block."""
    folder = platform.folder / "credentials" / f"{network}.{namespace}.{account}"
    shutil.rmtree(folder, ignore_errors=True)  # what an earlier block got may have lost its key since
    folder.mkdir(parents=True)
    token = await platform.token(account, namespace, audience=names.DEFAULT_AUDIENCE)
    write_private(folder / "token", token.encode())
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "EDGEFARM_NETWORK": network,
        "EDGEFARM_NAMESPACE": namespace,
        "EDGEFARM_SERVICE_ACCOUNT": account,
        "EDGEFARM_POD_NAME": "demo",
        "EDGEFARM_POD_IP": "127.0.0.1",
        "EDGEFARM_MODE": "nats",
        "EDGEFARM_VAULT_ADDR": platform.vault_address,
        "EDGEFARM_CA_BUNDLE": platform.ca_bundle,
        "EDGEFARM_TOKEN_FILE": str(folder / "token"),
        "EDGEFARM_CREDENTIALS_DIR": str(folder),
        "EDGEFARM_COMPONENTS_DIR": str(folder),
        "EDGEFARM_HEALTH_PORT": str(free_port()),
    }
    sidecar = LocalProcess.start(
        f"sidecar of {account}", [sys.executable, "-m", "sidecar"], log=folder / "sidecar.log", env=environment
    )
    try:
        creds = folder / "nats.creds"
        await asyncio.to_thread(sidecar.wait_until, creds.exists, "in possession of credentials")
        yield creds
    finally:
        await asyncio.to_thread(sidecar.stop)


@asynccontextmanager
async def connection(platform: Installation, creds: Path, errors: list[str]) -> AsyncIterator[NatsClient]:
    """A NATS connection with these credentials; what the server complains of is appended to `errors`."""

    async def on_error(error: Exception) -> None:
        errors.append(str(error))

    try:
        client = await nats.connect(
            platform.nats_url,
            user_credentials=str(creds),
            tls=ssl.create_default_context(cadata=platform.ca_bundle),
            allow_reconnect=False,
            error_cb=on_error,
        )
    except NatsError as error:
        raise CheckFailed(f"no connection with {creds.name}: {error}") from error
    try:
        yield client
    finally:
        await client.close()
