"""A stand-in for daprd 1.18, for demo and tests where no daprd can be had: the parts that this product leans on.

It speaks to the real NATS, reads the same component files and takes the same flags. What the real one refuses it
refuses, and what it cannot do it refuses, too, instead of pretending.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

__all__ = ["write_launcher"]


def write_launcher(folder: Path) -> Path:
    """Write an executable `daprd` into `folder` that starts the stand-in with this Python; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    launcher = folder / "daprd"
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m localcluster.daprd "$@"\n')
    launcher.chmod(0o755)
    return launcher
