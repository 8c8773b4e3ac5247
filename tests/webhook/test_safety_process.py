"""The webhook's process: no rights anywhere, and replaceable under load without a failed admission."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from localcluster.process import LocalProcess
from tests.webhook.balancer import Balancer
from tests.webhook.conftest import StartWebhook, Webhook, make_pod, make_review, patch_of
from tests.webhook.test_lifecycle import Load, wait_until
from webhook.app import MAX_BODY

#: An ordinary user without any right; as such the image runs it.
_NOBODY = 65534


def open_sockets(pid: int) -> list[tuple[int, int]]:
    """Local and remote port of every IPv4 socket of a process; the remote port of a listener is 0."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return [
        (int(row[1].rpartition(":")[2], 16), int(row[2].rpartition(":")[2], 16)) for row in rows if row[9] in inodes
    ]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def files_open_for_writing(pid: int) -> set[str]:
    """Regular files that a process may write to."""
    found = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = Path(f"/proc/{pid}/fd/{number}")
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened = path.readlink()
            flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
            is_file = stat.S_ISREG(path.stat().st_mode)
            # The number may have been given to another file meanwhile: then these flags are not of this one.
            if is_file and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY and path.readlink() == opened:
                found.add(str(opened))
    return found


def test_it_talks_to_nobody_and_needs_neither_token_nor_address_of_the_api_server(start_webhook: StartWebhook) -> None:
    webhook = start_webhook()
    environment = Path(f"/proc/{webhook.process.pid}/environ").read_bytes()
    assert b"KUBERNETES_" not in environment
    assert b"KUBECONFIG" not in environment
    with Load(webhook) as load:
        for _ in range(10):
            load.wait_for_more(20)
            for local, remote in open_sockets(webhook.process.pid):
                assert remote == 0 or local in (webhook.port, webhook.health_port), "it opened a connection"
    assert load.failures == []


def restricted(webhook: Webhook, folder: Path) -> LocalProcess:
    """The same webhook once more, as a pod's security context would run it: no rights, nothing writable."""
    folder.chmod(0o555)
    command = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all"]
    if os.geteuid() == 0:
        command += ["--bounding-set=-all", *_other_user()]
    environment = Path(f"/proc/{webhook.process.pid}/environ").read_bytes().decode().split("\0")
    arguments = Path(f"/proc/{webhook.process.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    variables = dict(variable.split("=", 1) for variable in environment if variable)
    webhook.process.stop()
    return LocalProcess.start(
        "webhook",
        [*command, *arguments],
        log=webhook.process.log.with_name("restricted.log"),
        env=variables | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder), "HOME": str(folder)},
        cwd=folder,
    )


def _other_user() -> list[str]:
    """Arguments that leave root, where the interpreter can be reached without being root."""
    user = ["--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups"]
    readable = subprocess.run(["setpriv", *user, "test", "-r", __file__, "-a", "-x", _interpreter()], check=False)
    return user if readable.returncode == 0 else []


def _interpreter() -> str:
    return str(Path("/proc/self/exe").resolve())


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")
def test_it_needs_no_capability_no_root_and_nothing_to_write_to(start_webhook: StartWebhook, tmp_path: Path) -> None:
    webhook, folder = start_webhook(), tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid() == 0:
        _let_others_read(tmp_path)
    process = restricted(webhook, folder)
    webhook = replace(webhook, process=process)
    try:
        process.wait_until(webhook.is_ready, "ready")
        with Load(webhook) as load:
            load.wait_for_more(100)
        assert load.failures == []
        status = status_of(process.pid)
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0} or os.geteuid() != 0
        assert status["NoNewPrivs"] == "1"
        assert files_open_for_writing(process.pid) == {str(process.log)}
        assert list(folder.iterdir()) == []
    finally:
        process.stop()


def _let_others_read(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def test_a_rolling_restart_of_two_replicas_under_load_fails_no_admission(start_webhook: StartWebhook) -> None:
    replicas = [start_webhook(EDGEFARM_WEBHOOK_DRAIN="1s"), start_webhook(EDGEFARM_WEBHOOK_DRAIN="1s")]
    with Balancer(lambda: list(replicas)) as balancer:
        service = replace(replicas[0], port=balancer.port)
        with Load(service, clients=6) as load:
            load.wait_for_more(50)
            for old in list(replicas):
                new = start_webhook(EDGEFARM_WEBHOOK_DRAIN="1s")
                replicas.append(new)
                wait_until(lambda replica=new: balancer.sends_to(replica), "traffic to it")  # type: ignore[misc]
                old.process.signal(signal.SIGTERM)
                wait_until(lambda replica=old: not balancer.sends_to(replica), "end of its traffic")  # type: ignore[misc]
                load.wait_for_more(50)
                assert old.process.wait(20) == 0
                replicas.remove(old)
                load.wait_for_more(50)
        assert load.failures == []
        assert all(replica.admit(make_review(make_pod()))["allowed"] for replica in replicas)


def test_the_largest_pod_that_an_api_server_takes_is_answered_within_its_deadline(webhook: Webhook) -> None:
    variables = [{"name": f"VARIABLE_{number:05}", "value": "x" * 200} for number in range(13_500)]
    body = json.dumps(make_review(make_pod(containers=[{"name": "app", "env": variables}]))).encode()
    assert 3 * 2**20 < len(body) < MAX_BODY
    connection = webhook.connect(timeout=5)  # as long as the API server waits
    connection.request("POST", "/mutate", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    assert len(patch_of(json.loads(response.read())["response"])) > 3
    connection.close()
