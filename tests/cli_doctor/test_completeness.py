"""Every code has a way to be produced, and an entry that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

from edgefarm.findings import Code
from tests.cli_doctor.breaks import BREAKS as OF_COMMAND
from tests.reconciler_diagnostics.breaks import BREAKS as OF_RECONCILER
from tests.reconciler_diagnostics.test_device import CASES as OF_DEVICES

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "findings.md"
#: These have tests of their own, because there is no other finding beside them.
ALONE = {Code.API_UNREACHABLE, Code.RECONCILER_MAY_NOT_BE_ASKED}


def test_every_code_is_produced_by_a_break() -> None:
    assert {*OF_COMMAND, *OF_RECONCILER, *OF_DEVICES, *ALONE} == set(Code)


def test_every_code_has_one_entry_in_the_runbook_and_there_are_no_others() -> None:
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(Code)


def test_every_entry_says_what_it_means_how_to_confirm_it_and_what_to_do() -> None:
    for entry in RUNBOOK.read_text().split("\n## ")[1:]:
        code = entry.partition("\n")[0]
        assert all(f"**{part}**" in entry for part in ("Means", "Confirm", "Do")), code
