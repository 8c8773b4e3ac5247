"""The credentials folder on the node's disk: both users and the access document, replaced together or not at all.

Each set is a folder of its own, and the link `current` names the one in force:

    credentials/current -> 1700000000-1f3a    network.creds, system.creds, access.json

Replacing the link is one step, so that a power cut at any moment leaves the old set or the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Final

from edgefarm.errors import EdgefarmError, InvalidCredential
from sidecar.credentials import Credentials
from sidecar.leaf.access import LeafAccess
from sidecar.leaf.credentials import LeafCredentials
from sidecar.store import write_file

NETWORK: Final = "network.creds"
SYSTEM: Final = "system.creds"
ACCESS: Final = "access.json"
_CURRENT: Final = "current"
_MODE: Final = 0o600
_FOLDER_MODE: Final = 0o700


class LeafStore:
    """What an earlier run left, and where new credentials go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = folder / _CURRENT

    @property
    def network(self) -> Path:
        """The creds file of the network's user; always the newest, under the same name."""
        return self._link / NETWORK

    @property
    def system(self) -> Path:
        """The creds file of the system account's user."""
        return self._link / SYSTEM

    def load(self) -> LeafCredentials | None:
        """What an earlier run left; None when there is nothing, InvalidCredential when it cannot be used."""
        try:
            document = json.loads((self._link / ACCESS).read_bytes())
            return LeafCredentials.of_files(
                self.network.read_text(), self.system.read_text(), LeafAccess.parse(document)
            )
        except FileNotFoundError:
            if self._link.is_symlink():
                raise InvalidCredential(
                    f"credentials of an earlier run in {self._folder} cannot be used: a file is missing"
                ) from None
            return None
        except (OSError, ValueError, AttributeError, EdgefarmError) as error:
            raise InvalidCredential(
                f"credentials of an earlier run in {self._folder} cannot be used: {error}"
            ) from error

    def save(self, credentials: Credentials) -> None:
        """Replace both users and the document; OSError when the disk does not take them: the old ones stay."""
        assert isinstance(credentials, LeafCredentials)  # a leaf's session has no others
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        name = f"{credentials.issued_at}-{os.urandom(4).hex()}"
        fresh = self._folder / name
        try:
            fresh.mkdir(mode=_FOLDER_MODE)
            write_file(fresh / ACCESS, json.dumps(credentials.access.document()).encode(), _MODE)
            write_file(fresh / NETWORK, credentials.file().encode(), _MODE)
            write_file(fresh / SYSTEM, credentials.system_file().encode(), _MODE)
            self._point_to(name)
        except OSError:
            _remove(fresh)
            raise
        self._remove_others(name)

    def _point_to(self, name: str) -> None:
        link = self._folder / f".{_CURRENT}.new"
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(name)
        link.rename(self._link)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove_others(self, kept: str) -> None:
        # The new set is in force by now, so nothing in here can make saving it fail.
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.name != kept and path.is_dir() and not path.is_symlink():
                    _remove(path)


def _remove(folder: Path) -> None:
    # What cannot be removed now is removed after the next renewal.
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
