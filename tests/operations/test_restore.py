"""The OpenBao that the reconciler runs is restored from a snapshot, by the commands of docs/operations.md."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from edgefarm import names
from localcluster.stack import find_program
from reconciler.ports import POD, SECRET
from tests.reconciler_servers.world import World

# As in the tests of the server that it restores: Python leaves a socket open whose peer goes away before TLS.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
#: What the page adds to the policy of the set-up role.
RIGHTS = {
    "sys/storage/raft/snapshot": {"capabilities": ["read"]},
    "sys/storage/raft/snapshot-force": {"capabilities": ["update"]},
}


def bao(world: World, *arguments: str, token: str = "", stdin: str = "") -> str:
    """Run `bao` as an administrator beside the cluster does."""
    assert world.source.current is not None
    authority = world.folder / "ca.crt"
    authority.write_text(world.source.current.vault.server.ca_pem or "")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(world.folder),
        "BAO_ADDR": f"https://{world.node.serving()}:8200",
        "BAO_CACERT": str(authority),
        "BAO_TOKEN": token,
    }
    done = subprocess.run(
        [find_program("bao"), *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def log_in(world: World) -> str:
    """A token of the set-up role that may take and restore snapshots."""
    login, jwt = "auth/edgefarm-kubernetes/login", world.token_file.read_text()
    token = bao(world, "write", "-field=token", login, f"role={names.VAULT_SETUP_ROLE}", f"jwt={jwt}").strip()
    policy = json.loads(bao(world, "policy", "read", names.VAULT_SETUP_ROLE, token=token))
    policy["path"] |= RIGHTS
    bao(world, "policy", "write", names.VAULT_SETUP_ROLE, "-", token=token, stdin=json.dumps(policy))
    return token


async def test_an_openbao_that_lost_its_disk_is_restored_with_its_keys(world: World) -> None:
    await world.until_ready()
    operator = world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT)
    recovery = await world.kube.get(SECRET, world.namespace, names.VAULT_RECOVERY_SECRET)
    assert recovery is not None
    snapshot = str(world.folder / "bao.snapshot")
    bao(world, "operator", "raft", "snapshot", "save", snapshot, token=log_in(world))

    first = names.server_replica(names.VAULT_SERVER, 0)
    await world.kube.delete(SECRET, world.namespace, names.VAULT_RECOVERY_SECRET)
    shutil.rmtree(world.node.folder / first / "data")
    await world.kube.delete(POD, world.namespace, first)
    world.restart()
    await world.until_ready(60)
    assert world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT) != operator

    bao(world, "operator", "raft", "snapshot", "restore", "-force", snapshot, token=log_in(world))
    await world.kube.delete(SECRET, world.namespace, names.VAULT_RECOVERY_SECRET)
    for member in ("resourceVersion", "uid"):
        del recovery["metadata"][member]
    await world.kube.create(SECRET, recovery)
    world.restart()
    await world.until_ready()
    assert world.vault(names.CONTROLLER_ROLE).read_document(names.OPERATOR_DOCUMENT) == operator
    assert RIGHTS.keys().isdisjoint(
        json.loads(world.vault(names.VAULT_SETUP_ROLE).policy(names.VAULT_SETUP_ROLE) or "{}")["path"]
    )
    assert not [event for event in world.events.seen if event[1] == "RecoveryKeyLost"]
