"""`make demo-helm` as a user runs it: every step holds, and nothing is left, also after Ctrl-C in the middle."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from localcluster.demo.helm.platform import missing
from tests.e2e.test_demo import left_over, running

pytestmark = pytest.mark.skipif((lacking := missing()) is not None, reason=str(lacking))
DEMO: Final = "localcluster.demo.helm"
#: The step after which reconciler, webhook and servers run.
MIDDLE: Final = "OpenBao is initialised, NATS runs"


@pytest.mark.timeout(600)
def test_every_step_of_the_helm_demo_holds_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "helm-whole", DEMO) as process:
        output, errors = process.communicate(timeout=580)
        lines = [json.loads(line) for line in output.splitlines()]
        failed = [line for line in lines if not line.get("ok", True)]
        assert process.returncode == 0, f"{failed}\n{errors}"
        assert lines[-1]["summary"]["ok"] is True
        assert len(lines[:-1]) == lines[-1]["summary"]["steps"] == 21
        assert all(line["detail"] and line["seconds"] >= 0 for line in lines[:-1])
        assert left_over("helm-whole", folder) == []


@pytest.mark.timeout(300)
def test_a_helm_demo_that_is_interrupted_in_the_middle_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "helm-interrupted", DEMO) as process:
        assert process.stdout is not None
        for line in process.stdout:
            step = json.loads(line)
            assert step["ok"], line
            if step["step"] == MIDDLE:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        deadline = time.monotonic() + 30
        while left_over("helm-interrupted", folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left_over("helm-interrupted", folder) == []
