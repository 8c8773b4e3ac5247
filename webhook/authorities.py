"""The certificates that pods verify Vault and NATS against: read from a mounted file, again whenever it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from webhook import mounted

#: What `stamp` never returns: the file has not been looked at yet.
_NEVER: Final = object()


class Authorities:
    """Tells `on_load` the text (PEM) of `file` at each change for the better.

    A file without a certificate leaves the former text in force: pods that verify against nothing of ours would start
    and never connect.
    """

    def __init__(self, file: Path | None, log: structlog.stdlib.BoundLogger, on_load: Callable[[str], None]) -> None:
        """Without a file pods verify against the roots of their own system, and there is nothing to load."""
        self._file, self._log, self._on_load = file, log, on_load
        self._seen: object = _NEVER
        self._loaded = file is None
        #: What is wrong with the file as it is now: a sentence that names its variable; empty while it is right.
        self.problem = ""

    @property
    def loaded(self) -> bool:
        """Whether it is known what pods verify servers against."""
        return self._loaded

    def refresh(self) -> bool:
        """Read the file if it changed since the last look; whether a new text came into use."""
        if self._file is None or (stamp := mounted.stamp(self._file)) == self._seen:
            return False
        self._seen = stamp
        try:
            text = self._file.read_text(encoding="ascii")
            count = len(x509.load_pem_x509_certificates(text.encode()))
        except OSError as error:
            return self._unusable(f"cannot be read: {error.strerror}")
        except ValueError:
            return self._unusable("holds no PEM certificates")
        self.problem, self._loaded = "", True
        self._on_load(text)
        self._log.info("authorities loaded", certificates=count)
        return True

    def _unusable(self, what: str) -> bool:
        self.problem = f"EDGEFARM_CA_FILE is {str(self._file)!r}, which {what}"
        self._log.error("authorities not usable", problem=self.problem, kept_former=self._loaded)
        return False
