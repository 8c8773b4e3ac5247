"""Keeps the private keys of WireGuard interfaces on this host: one file each, readable by its owner only.

A new key is staged beside the old one and takes its place when the change that it belongs to is stored; in between,
the public key in the stored state tells which of the two counts.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from abbot.carrying import key_bytes
from abbot.files import sync_folder, write_atomically
from edgefarm.errors import InvalidMessage

_ENDING: Final = ".key"
_STAGED: Final = ".key.new"


def make_key() -> str:
    """A new private key, base64."""
    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def public_key(private_key: str) -> str:
    """The public key of a private key; InvalidMessage when it is none."""
    raw = key_bytes(private_key)
    return base64.b64encode(X25519PrivateKey.from_private_bytes(raw).public_key().public_bytes_raw()).decode()


class KeyFolder:
    """The folder of the keys; interface names are checked before they come here. OSError when the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, interface: str, public: str) -> str | None:
        """The private key of an interface whose public key is `public`; None when it is lost."""
        for ending in (_ENDING, _STAGED):
            with contextlib.suppress(OSError, UnicodeDecodeError, InvalidMessage):
                key = (self._folder / (interface + ending)).read_text().strip()
                if public_key(key) == public:
                    return key
        return None

    def stage(self, interface: str, key: str) -> None:
        """Store a new key beside the one in use."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._folder / (interface + _STAGED), key.encode() + b"\n")

    def unstage(self, interface: str) -> None:
        """Forget a staged key."""
        (self._folder / (interface + _STAGED)).unlink(missing_ok=True)

    def settle(self, interface: str, public: str) -> None:
        """Put a staged key in use when its public key is `public`, else forget it."""
        staged = self._folder / (interface + _STAGED)
        if not staged.exists():
            return
        with contextlib.suppress(UnicodeDecodeError, InvalidMessage):
            if public_key(staged.read_text().strip()) == public:
                staged.rename(self._folder / (interface + _ENDING))
                sync_folder(self._folder)
                return
        staged.unlink(missing_ok=True)

    def keep_only(self, interfaces: Collection[str]) -> None:
        """Remove the keys of all other interfaces."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            name = path.name.removesuffix(".new").removesuffix(_ENDING)
            if name != path.name and name not in interfaces:
                path.unlink(missing_ok=True)
