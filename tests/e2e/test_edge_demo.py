"""`make demo-edge` as a user runs it: every step holds, and nothing is left, also after Ctrl-C in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.e2e.test_demo import interrupt, left_over, run_to_the_end, run_until, running

DEMO: Final = "localcluster.demo.edge"
#: The step after which leafs, applications and their sidecars run on all nodes.
MIDDLE: Final = "pods talk to the leaf of their node, else to the hub"


@pytest.mark.timeout(600)
def test_every_step_of_the_edge_demo_holds_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "edge-whole", DEMO) as process:
        run_to_the_end(process, steps=17, within=580)
        assert left_over("edge-whole", folder) == []


@pytest.mark.timeout(300)
def test_an_edge_demo_that_is_interrupted_in_the_middle_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "edge-interrupted", DEMO) as process:
        run_until(process, MIDDLE)
        interrupt(process, "edge-interrupted", folder, within=30)
