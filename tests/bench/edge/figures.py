"""How results are printed: one JSON object per line on stdout, progress on stderr."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_STARTED: Final = time.monotonic()


@dataclass(frozen=True)
class Case:
    """What a benchmark's lines are about. `peer` names what it is compared with; None: nothing."""

    name: str
    peer: str | None = None
    bench: str = "edge"

    def say(self, metric: str, unit: str, values: Sequence[float], peers: Sequence[float] = ()) -> None:
        """The median, and beside it that of the peer.

        The ratio is that of pairs that ran one after the other, not of medians: the machine may have changed since.
        """
        line: dict[str, Any] = {"bench": self.bench, "case": self.name, "metric": metric, "unit": unit}
        line["value"] = round(statistics.median(values), 3)
        if peers:
            ratios = [ours / peer for ours, peer in zip(values, peers, strict=True)]
            line |= {"peer": self.peer, "peer_value": round(statistics.median(peers), 3)}
            line |= {"ratio": round(statistics.median(ratios), 3), "pairs": len(ratios)}
        print(json.dumps(line), flush=True)


def note(text: str) -> None:
    """Tell the person at the screen what is being done."""
    print(f"{time.monotonic() - _STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, to about a microsecond."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9
