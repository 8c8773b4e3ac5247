"""`make demo` as a user runs it: every step holds, and nothing that it started is left, also after Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A variable that every child inherits, so that what a run left behind can be told from all other processes.
MARK = "EDGEFARM_TEST_RUN"


@contextmanager
def running(folder: Path, mark: str, demo: str = "localcluster.demo") -> Iterator[subprocess.Popen[str]]:
    """A demo's process, which ends with the test whatever becomes of that."""
    command = [sys.executable, "-m", demo, "--json", "--data-dir", str(folder)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_over(mark: str, folder: Path) -> list[str]:
    """Command lines of processes that carry the mark, or that name the run's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0") or (str(folder) in command):
            found.append(command)
    return found


def run_to_the_end(process: subprocess.Popen[str], *, steps: int, within: float) -> None:
    """Every step of the demo holds, and there are so many."""
    output, errors = process.communicate(timeout=within)
    lines = [json.loads(line) for line in output.splitlines()]
    failed = [line for line in lines if not line.get("ok", True)]
    assert process.returncode == 0, f"{failed}\n{errors}"
    assert lines[-1]["summary"]["ok"] is True
    assert len(lines[:-1]) == lines[-1]["summary"]["steps"] == steps
    assert all(line["detail"] and line["seconds"] >= 0 for line in lines[:-1])


def run_until(process: subprocess.Popen[str], title: str) -> None:
    """The steps hold up to the one with this title, which is the last that is awaited."""
    assert process.stdout is not None
    for line in process.stdout:
        step = json.loads(line)
        assert step["ok"], line
        if step["step"] == title:
            return
    pytest.fail(f"the demo ended without the step {title!r}")


def interrupt(process: subprocess.Popen[str], mark: str, folder: Path, *, within: float) -> None:
    """After Ctrl-C the demo ends as interrupted, and in so many seconds more nothing of it is left."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_after(mark, folder, within=within) == []


def left_after(mark: str, folder: Path, *, within: float) -> list[str]:
    """What of it still runs after so many seconds; at once when nothing does."""
    deadline = time.monotonic() + within
    while left_over(mark, folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left_over(mark, folder)


def test_a_given_cluster_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "localcluster.demo", "--data-dir", str(tmp_path / "demo-data")]
    environment = {**os.environ, "EDGEFARM_TEST_KUBECONFIG": str(tmp_path / "kubeconfig")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == "The demo makes a cluster of its own: unset EDGEFARM_TEST_KUBECONFIG.\n"
    assert not (tmp_path / "demo-data").exists()


@pytest.mark.timeout(300)
def test_every_step_of_the_demo_holds_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "whole") as process:
        run_to_the_end(process, steps=16, within=280)
        assert left_over("whole", folder) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, f"interrupted-{number}") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())  # API server and OpenBao are running
        assert first["ok"] is True
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == (130 if number is not signal.SIGKILL else -number)
        assert left_after(f"interrupted-{number}", folder, within=5) == []
