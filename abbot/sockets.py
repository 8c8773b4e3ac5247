"""The unix sockets' paths: free for us, or taken by another daemon; reachable for root's group only."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgefarm.errors import SettingsError

_FOLDER_MODE: Final = 0o750
#: What is left of 0666 is 0660.
_SOCKET_MASK: Final = 0o117
_CONNECT_TIMEOUT: Final = 2.0


def claim(path: Path) -> None:
    """Make the folder, and remove the socket of a daemon that is dead.

    SettingsError when somebody answers there, or when what is there is no socket.
    """
    if not path.parent.is_dir():
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True)
        path.parent.chmod(_FOLDER_MODE)
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SettingsError([f"socket: {path} exists and is no socket: remove it, or write another path"])
    except FileNotFoundError:
        return
    if _answers(path):
        raise SettingsError([f"socket: another abbot daemon serves {path}: end it first, or write another path"])
    path.unlink()


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Sockets that are made meanwhile have mode 0660."""
    before = os.umask(_SOCKET_MASK)
    try:
        yield
    finally:
        os.umask(before)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_TIMEOUT)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # It has a queue that is full, or may not be spoken to: in any case somebody is there.
            return True
    return True
