"""`make demo-helm` as a user runs it: every step holds, and nothing is left, also after Ctrl-C in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from localcluster.demo.helm.platform import missing
from tests.e2e.test_demo import interrupt, left_over, run_to_the_end, run_until, running

pytestmark = pytest.mark.skipif((lacking := missing()) is not None, reason=str(lacking))
DEMO: Final = "localcluster.demo.helm"
#: The step after which reconciler, webhook and servers run.
MIDDLE: Final = "OpenBao is initialised, NATS runs"


@pytest.mark.timeout(600)
def test_every_step_of_the_helm_demo_holds_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "helm-whole", DEMO) as process:
        run_to_the_end(process, steps=21, within=580)
        assert left_over("helm-whole", folder) == []


@pytest.mark.timeout(300)
def test_a_helm_demo_that_is_interrupted_in_the_middle_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    with running(folder, "helm-interrupted", DEMO) as process:
        run_until(process, MIDDLE)
        interrupt(process, "helm-interrupted", folder, within=30)
