"""`python -m sidecar leaf prepare`: gives the folder on the node's disk to the user of the leaf's containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: User and group of both containers.
USER: Final = 65532
_MODE: Final = 0o700


def prepare(folder: Path) -> None:
    """Make the folder ours to give, private, and give it away; OSError names what cannot be done.

    Only the folder itself: all that is in it was made by that user. Runs as root with CAP_CHOWN and nothing else, so
    the mode is set while the folder still belongs to root. Somebody who is not root keeps it for himself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{folder} cannot be written by user {os.geteuid()}")
        return
    if folder.stat().st_uid != USER:
        os.chown(folder, 0, 0)
        folder.chmod(_MODE)
        os.chown(folder, USER, USER)
