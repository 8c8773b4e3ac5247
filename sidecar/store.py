"""The files of the credentials folder: written whole or not at all, and read again after a restart."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Final

from edgefarm.errors import EdgefarmError, InvalidCredential
from sidecar.access import AccessDocument
from sidecar.credentials import Credentials

CREDS: Final = "nats.creds"
CA: Final = "ca.crt"
ACCESS: Final = "access.json"
#: What the application reads; its group is the pod's fsGroup.
FOR_APPLICATION: Final = 0o440
FOR_SIDECAR: Final = 0o400


class CredentialStore:
    """The credentials of an earlier run, and where new ones go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Credentials | None:
        """What an earlier run left; None when there is nothing, InvalidCredential when it cannot be used."""
        try:
            text = (self._folder / CREDS).read_text()
            document = json.loads((self._folder / ACCESS).read_bytes())
            return Credentials.parse(text, AccessDocument.parse(document))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, AttributeError, EdgefarmError) as error:
            raise InvalidCredential(
                f"credentials of an earlier run in {self._folder} cannot be used: {error}"
            ) from error

    def save(self, credentials: Credentials) -> None:
        """Replace the credentials; OSError when the folder cannot be written.

        The document goes first: were the process killed in between, the JWT would name another key than the document,
        and the next run would renew at once.
        """
        document = json.dumps(credentials.access.document()).encode()
        write_file(self._folder / ACCESS, document, FOR_SIDECAR)
        write_file(self._folder / CREDS, credentials.file().encode(), FOR_APPLICATION)

    def save_ca(self, pem: str) -> None:
        """Write the CA that applications verify NATS against; nothing where it stands already."""
        path, content = self._folder / CA, pem.encode()
        with contextlib.suppress(OSError):
            if path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == FOR_APPLICATION:
                return
        write_file(path, content, FOR_APPLICATION)


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Replace `path` so that a reader sees the old content or the new, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the ending of `path`: daprd reads every .yaml in its folder.
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
