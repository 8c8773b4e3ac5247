"""Programs are run with limits, and nothing of them outlives those."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from abbot.container.commands import Finished, run
from edgefarm.errors import NetworkFailed


def test_a_program_gets_its_input_and_an_environment_of_its_own() -> None:
    finished = run(["sh", "-c", "cat; echo $A; echo $HOME >&2; exit 3"], stdin=b"in ", env={"A": "b"})
    assert finished == Finished(3, b"in b\n", b"\n")


def test_a_program_that_does_not_read_its_input_blocks_nobody() -> None:
    assert run(["true"], stdin=bytes(1 << 22)) == Finished(0, b"", b"")


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 & echo $! > child; wait", "exec >&- 2>&-; sleep 60"])
def test_a_program_that_hangs_is_killed_with_its_children(work: Path, script: str) -> None:
    with pytest.raises(NetworkFailed, match=r"sh did not end within 0\.5 s and was killed"):
        run(["sh", "-c", f"cd {work}; {script}"], timeout=0.5)
    if "child" in script:
        child = int((work / "child").read_text())
        deadline = time.monotonic() + 5
        while _lives(child):
            assert time.monotonic() < deadline


def test_a_program_that_writes_without_end_is_killed() -> None:
    with pytest.raises(NetworkFailed, match="yes wrote more than 1048576 bytes and was killed"):
        run(["yes"])


def test_a_program_that_cannot_be_run_is_named(work: Path) -> None:
    (work / "text").write_text("no program")
    with pytest.raises(NetworkFailed, match=r"text cannot be run: Permission denied"):
        run([str(work / "text")])
    with pytest.raises(NetworkFailed, match=r"nowhere cannot be run: No such file"):
        run([str(work / "nowhere")])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
