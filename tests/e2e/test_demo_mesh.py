"""`make demo-mesh` as a user runs it: every step holds, and nothing is left, also after Ctrl-C in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.test_demo import ROOT, interrupt, left_over, run_to_the_end, run_until, running
from tests.netkit import needs_root_network

DEMO: Final = "localcluster.demo.mesh"
#: The step after which agents and abbots run on all hosts.
MIDDLE: Final = "agents register, and every host gets an EdgeDevice"


def made_by(pid: int) -> list[str]:
    """Namespaces whose maker is this process."""
    found = []
    for record in Path("/run/edgefarm-netns").glob("*/maker"):
        if record.read_text().split()[:1] == [str(pid)]:
            found += [path.name for path in Path("/run/netns").glob(f"{record.parent.name}-*")]
    return found


@needs_root_network
@pytest.mark.timeout(600)
def test_every_step_of_the_mesh_demo_holds_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "mesh-whole", DEMO) as process:
        run_to_the_end(process, steps=16, within=580)
        assert left_over("mesh-whole", folder) == []
        assert made_by(process.pid) == []


@needs_root_network
@pytest.mark.timeout(300)
def test_a_mesh_demo_that_is_interrupted_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "mesh-interrupted", DEMO) as process:
        run_until(process, MIDDLE)
        assert made_by(process.pid)
        interrupt(process, "mesh-interrupted", folder, within=5)
        assert made_by(process.pid) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes somebody else")
def test_without_root_the_mesh_demo_says_so_in_one_sentence_and_starts_nothing(tmp_path: Path) -> None:
    # nobody cannot read every installation's folders: the check alone is run as them
    script = (
        "import os, sys; from localcluster.demo.mesh.__main__ import main; os.setuid(65534); "
        f"sys.argv = ['demo', '--data-dir', {str(tmp_path / 'demo-data')!r}]; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "make demo-mesh was not run: network namespaces need root\n"
    assert not (tmp_path / "demo-data").exists()
