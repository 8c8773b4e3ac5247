"""Runs the tests: all of them side by side, then the few that failed once more, alone.

Hundreds of tests here start real servers, and a shared machine sometimes stalls one of them beyond its deadline. A test
that passes alone is therefore reported, with its failure above, and does not fail the run; one that fails twice does.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

#: More failures than this are no accident: they are not repeated.
MOST_REPEATED = 5
BESIDE_EACH_OTHER = ("-n", "3", "--dist", "loadfile", "--no-loadscope-reorder")


class Failures:
    """A pytest plugin that remembers which tests failed."""

    def __init__(self) -> None:
        self.node_ids: dict[str, None] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.node_ids[report.nodeid] = None


def main(arguments: list[str]) -> int:
    """The exit status: pytest's own, or 0 when all that failed passed alone."""
    failures = Failures()
    status = pytest.main([*BESIDE_EACH_OTHER, *arguments], plugins=[failures])
    failed = list(failures.node_ids)
    if status != pytest.ExitCode.TESTS_FAILED or not 0 < len(failed) <= MOST_REPEATED:
        return int(status)
    print(f"\n{len(failed)} failed beside others; once more, alone:", *failed, sep="\n  ", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", *failed], check=False).returncode
    if again == 0:
        print("\nPassed only alone, and so depend on how busy the machine is; they want mending:", *failed, sep="\n  ")
    return again


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
